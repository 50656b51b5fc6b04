"""Examples as bytes in one array, shared by forked processes."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from typing import overload

import numpy as np

from easycap.data.example_table import ExampleTable
from easycap.types import Example


class PackedExamples(Sequence[Example]):
    """Examples as bytes in one array, recreated when asked for.

    For processes forked from this one: looking at an object changes the count of its references, which would copy the
    page it lies in, and in the end all of them, to each process. Nothing here is ever written.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        packed, ends = io.BytesIO(), [0]
        for example in examples:
            packed.write(pickle.dumps(example))
            ends.append(packed.tell())
        self.packed, self.ends = np.frombuffer(packed.getbuffer(), np.uint8), np.array(ends)

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]  # from the end if negative
        return pickle.loads(self.packed[self.ends[place] : self.ends[place + 1]].data)


def shareable(examples: Sequence[Example]) -> ExampleTable | PackedExamples:
    """Return examples that processes forked from this one share, whatever they look at."""
    return examples if isinstance(examples, ExampleTable) else PackedExamples(examples)
