"""Rows of tables in batches: as columns if all rows have the same, so that millions of rows need no object each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from easycap.data.json_tables import Entry

MOST_ROWS = 4096  # in a batch


@dataclass(frozen=True)
class Batch:
    """Rows as `columns` {name: cells (N,)}, row n of which stands at `where(n)`; or, without columns, as entries."""

    columns: Mapping[str, Sequence[Any]]
    where: Callable[[int], str]
    others: Sequence[Entry] = ()

    def __len__(self) -> int:
        return len(self.others) or len(next(iter(self.columns.values()), ()))

    def entries(self) -> Iterator[Entry]:
        """Yield the rows one by one."""
        yield from self.others
        names = list(self.columns)
        for number, values in enumerate(zip(*self.columns.values(), strict=True)):
            yield Entry(self.where(number), dict(zip(names, values, strict=True)))


def batches_of(entries: Iterable[Entry]) -> Iterator[Batch]:
    """Yield entries that may have any columns each."""
    left = iter(entries)
    while others := list(islice(left, MOST_ROWS)):
        yield Batch({}, str, others)


def entries_of(batches: Iterable[Batch]) -> Iterator[Entry]:
    """Yield the rows of batches one by one."""
    for batch in batches:
        yield from batch.entries()
