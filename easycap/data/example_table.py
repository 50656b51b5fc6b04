"""Examples of images on disk as columns: millions of them are a few arrays, shared between processes."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, overload

import numpy as np

from easycap.data.images import ImageFile
from easycap.types import Example, ImageSource
from easycap.utils.string_column import StringColumn

if TYPE_CHECKING:
    from easycap.data.sampler import Blocks  # which loads torch

_ROWS = 65_536  # whose captions are looked up at a time


class CodedColumn(NamedTuple):
    """A column of few values: `codes` (N,) are places in `values`, -1 where there is none."""

    codes: np.ndarray
    values: Sequence[str]


class ImageColumn(Protocol):
    """Where the N images of a table are."""

    def image(self, row: int) -> ImageSource:
        """Return an image."""

    def place(self, row: int) -> Path:
        """Return the path of an image, as messages name it."""

    def blocks(self, rows: np.ndarray) -> Blocks | None:
        """Return in which blocks the images `rows` (K,) lie; None if each is read on its own."""

    def digest(self) -> bytes:
        """Return what changes with the images where ids and captions stay, b"" if that is not known."""


@dataclass(frozen=True, eq=False)
class FilesBelow:
    """N image files: their paths below `root`."""

    root: Path
    paths: StringColumn

    def image(self, row: int) -> ImageFile:
        """Return the file of an image."""
        return ImageFile(self.place(row))

    def place(self, row: int) -> Path:
        """Return the path of a file."""
        return self.root / self.paths[row]

    def blocks(self, rows: np.ndarray) -> None:
        """Return None: files are read one by one."""

    def digest(self) -> bytes:
        """Return nothing: a file's content is not read."""
        return b""


@dataclass(frozen=True, eq=False)
class ExampleColumns:
    """N images: ids, where they are, captions (M,) of which those of image n begin at `first[n]` (N+1,), fields."""

    ids: StringColumn
    images: ImageColumn
    captions: StringColumn
    first: np.ndarray
    fields: Mapping[str, CodedColumn]


class ExampleTable(Sequence[Example]):
    """The images `rows` (K,) of columns that several tables may share; an example is made whenever it is asked for.

    `tagged` {id: annotations} gives images their tags, `scored` what scorers may read.
    """

    def __init__(
        self,
        columns: ExampleColumns,
        rows: np.ndarray,
        tagged: Mapping[str, Any] | None = None,
        scored: Mapping[str, Any] | None = None,
    ) -> None:
        self.columns, self.rows, self.tagged, self.scored = columns, rows, tagged or {}, scored or {}

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> ExampleTable: ...
    def __getitem__(self, index: int | slice) -> Example | ExampleTable:
        if isinstance(index, slice):
            return self.select(index)
        columns, row = self.columns, int(self.rows[index])
        captions = columns.captions[int(columns.first[row]) : int(columns.first[row + 1])]
        image_id = columns.ids[row]
        codes = ((name, column, int(column.codes[row])) for name, column in columns.fields.items())
        fields = {name: column.values[code] for name, column, code in codes if code >= 0}
        tags = self.tagged[image_id]["objects"] if image_id in self.tagged else ()
        return Example(
            image_id, columns.images.image(row), tuple(captions), tags, self.scored.get(image_id), fields
        )

    def __eq__(self, other: object) -> bool:
        """Whether `other` is a sequence of equal examples: a list of them is equal too."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have none

    def select(self, places: np.ndarray | slice) -> ExampleTable:
        """Return the table of the examples at `places`: integers, or a mask (K,)."""
        return ExampleTable(self.columns, self.rows[places], self.tagged, self.scored)

    def blocks(self) -> Blocks | None:
        """Return in which blocks the images lie; None if each is read on its own."""
        return self.columns.images.blocks(self.rows)

    def ids(self) -> Iterator[str]:
        """Yield the id of each example."""
        return self.columns.ids.at(self.rows)

    def captions(self) -> Iterator[str]:
        """Yield all captions of all examples."""
        first = self.columns.first
        for start in range(0, len(self.rows), _ROWS):
            rows = self.rows[start : start + _ROWS]
            counts = first[rows + 1] - first[rows]
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            yield from self.columns.captions.at(np.repeat(first[rows], counts) + within)


def fingerprint_of(splits: Mapping[str, ExampleTable]) -> str:
    """Return 16 hex digits of the ids and captions of all tables that splits are read from, and of their rows."""
    digest = hashlib.blake2b(digest_size=8)
    seen: list[ExampleColumns] = []
    for split, table in splits.items():
        columns = table.columns
        if not any(columns is one for one in seen):
            seen.append(columns)
            for texts in (columns.ids, columns.captions):
                digest.update(texts.data.data)
                digest.update(texts.ends.data)
            digest.update(columns.first.data)
            digest.update(columns.images.digest())
        digest.update(split.encode())
        digest.update(np.ascontiguousarray(table.rows).data)
    return digest.hexdigest()


def ids_of(examples: Sequence[Example]) -> Iterator[str]:
    """Yield the id of each example."""
    return examples.ids() if isinstance(examples, ExampleTable) else (example.id for example in examples)


def id_hashes(examples: Sequence[Example]) -> np.ndarray:
    """Return the hash of each example's id (N,), int64, of this process."""
    if isinstance(examples, ExampleTable):
        return examples.columns.ids.hashes()[examples.rows]
    return np.fromiter((hash(example.id) for example in examples), np.int64, len(examples))


def selected(examples: Sequence[Example], mask: np.ndarray) -> Sequence[Example]:
    """Return the examples where `mask` (N,) is true, as a table if they are one."""
    if isinstance(examples, ExampleTable):
        return examples.select(mask)
    return [examples[place] for place in np.flatnonzero(mask).tolist()]


class Captions(Collection[str]):
    """All captions of examples, iterable any number of times without holding them in memory."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def __iter__(self) -> Iterator[str]:
        if isinstance(self.examples, ExampleTable):
            return self.examples.captions()
        return (text for example in self.examples for text in example.references)

    def __len__(self) -> int:
        if isinstance(self.examples, ExampleTable):
            return int(np.diff(self.examples.columns.first)[self.examples.rows].sum())
        return sum(len(example.references) for example in self.examples)

    def __contains__(self, text: object) -> bool:
        return any(caption == text for caption in self)
