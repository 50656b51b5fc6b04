"""Millions of texts in two arrays, shared with forked processes; each text becomes an object only on access.

Numpy's StringDType cannot hold lone surrogates, which names of files and captions cut in JSON have.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice, pairwise
from typing import Any, overload

import numpy as np

_ROWS = 65_536  # gathered at a time: the places of their bytes take eight times their size
_ODD = np.int64(0x9E3779B97F4A7C15 - 2**64)  # spreads numbers over 64 bits
_WAITING = 4096  # texts that are encoded together


class StringColumn(Sequence[str]):
    """N texts as UTF-8 `data` (bytes,), uint8, and their `ends` (N+1,), int64, of which the first is 0."""

    def __init__(self, data: np.ndarray, ends: np.ndarray) -> None:
        self.data, self.ends = data, ends
        self._bytes, self._places = data.data, ends.data  # quicker to index than arrays
        self._hashes: np.ndarray | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return StringColumn, (self.data, self.ends)

    @classmethod
    def of(cls, texts: Iterable[str]) -> StringColumn:
        """Return a column of `texts`, which may have lone surrogates as file names do."""
        builder = StringBuilder()
        for text in texts:
            builder.append(text)
        return builder.column()

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]  # from the end if negative
        return str(self._bytes[self._places[place] : self._places[place + 1]], "utf-8", "surrogatepass")

    def hashes(self) -> np.ndarray:
        """Return the hash of each text (N,), int64, of this process."""
        if self._hashes is None:
            self._hashes = np.fromiter(map(hash, self), np.int64, len(self))
        return self._hashes

    def at(self, rows: np.ndarray) -> Iterator[str]:
        """Yield the texts in `rows` (M,), in their order."""
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            for begin, end in zip(self.ends[part].tolist(), self.ends[part + 1].tolist(), strict=True):
                yield str(self._bytes[begin:end], "utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _ROWS):
            ends = self.ends[start : start + _ROWS + 1].tolist()
            for begin, end in pairwise(ends):
                yield str(self._bytes[begin:end], "utf-8", "surrogatepass")

    def take(self, rows: np.ndarray) -> StringColumn:
        """Return a column of the texts in `rows` (M,), in their order."""
        lengths = np.diff(self.ends)[rows]
        ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        data = np.empty(ends[-1], np.uint8)
        for start in range(0, len(rows), _ROWS):
            part = slice(start, start + _ROWS)
            # The place of each byte: that of its text's first, and its number within the text.
            shifts = np.repeat(self.ends[rows[part]] - ends[start:-1][:_ROWS], lengths[part])
            begin, end = ends[start], ends[start + len(lengths[part])]
            data[begin:end] = self.data[shifts + np.arange(begin, end)]
        return StringColumn(data, ends)

    def replaced(self, rows: np.ndarray, texts: StringColumn) -> StringColumn:
        """Return this column with `texts` (M,) in `rows` (M,)."""
        places = np.arange(len(self))
        places[rows] = len(self) + np.arange(len(rows))
        both = np.concatenate([self.ends, self.ends[-1] + texts.ends[1:]])
        return StringColumn(np.concatenate([self.data, texts.data]), both).take(places)


class StringBuilder:
    """Collects texts one by one; `column` returns them."""

    def __init__(self) -> None:
        self._data, self._ends = bytearray(), array("q", [0])
        self._waiting: list[str] = []

    def append(self, text: str) -> None:
        """Add a text."""
        self._waiting.append(text)
        if len(self._waiting) == _WAITING:
            self._flush()

    def extend(self, texts: Sequence[str]) -> None:
        """Add texts."""
        self._flush()
        self._waiting.extend(texts)
        self._flush()

    def column(self) -> StringColumn:
        """Return the texts, without a copy; nothing can be added from then on."""
        self._flush()
        return StringColumn(np.frombuffer(self._data, np.uint8), np.frombuffer(self._ends, np.int64))

    def _flush(self) -> None:
        texts: list[Any] = self._waiting
        whole = "".join(texts)
        if not whole.isascii():
            texts = [text.encode("utf-8", "surrogatepass") for text in texts]
        self._ends.extend(islice(accumulate(map(len, texts), initial=len(self._data)), 1, None))
        self._data += whole.encode("ascii") if whole.isascii() else b"".join(texts)
        self._waiting.clear()


def first_rows(texts: StringColumn, groups: np.ndarray) -> np.ndarray:
    """Return for each row the first one (N,) with the same text and the same of `groups` (N,), integers.

    Texts are compared where their hashes are equal.
    """
    keys = texts.hashes() ^ (groups.astype(np.int64) * _ODD)
    if (np.diff(np.sort(keys)) != 0).all():
        return np.arange(len(texts))
    order = np.argsort(keys, kind="stable")  # of equal ones the first row comes first
    begins = np.ones(len(texts), bool)
    begins[1:] = np.diff(keys[order]) != 0
    found = np.empty(len(texts), np.int64)
    found[order] = order[begins][np.cumsum(begins) - 1]
    again = np.flatnonzero(found != np.arange(len(found)))
    pairs = zip(texts.at(again), texts.at(found[again]), strict=True)
    if (groups[again] != groups[found[again]]).any() or any(text != first for text, first in pairs):
        seen: dict[tuple[str, int], int] = {}
        rows = enumerate(zip(texts, groups.tolist(), strict=True))
        return np.array([seen.setdefault(key, row) for row, key in rows], np.int64)
    return found
