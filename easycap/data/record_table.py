"""The rows of tables as columns: millions of rows are a few arrays instead of as many objects."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from easycap.data.caption_checks import NOT_TEXT, WORDLESS, are_clean, cleaned, has_word
from easycap.data.data_splits import SPLITS
from easycap.data.example_table import CodedColumn
from easycap.utils.string_column import StringBuilder, StringColumn, first_rows

# A column is kept as a field of its images if it has no more values than this, or is asked for.
_MOST_VALUES, _LONGEST_VALUE = 100, 100
NO_SPLIT = -1


@dataclass
class RecordTable:
    """N images: names as tables have them, ids, table folders, splits and captions (M,) of all of them.

    `folder` (N,) are places in `folders`, `split` (N,) places in `SPLITS` or `NO_SPLIT`. The captions of image n begin
    at `first[n]` (N+1,); `flags` (M,) are those of `caption_checks`, and `not_text` {caption: value} the others.

    `rejected` (N,) counts captions left out on purpose; `unreadable` (N,) are images whose text is among the issues.
    `where(n)` says which entry named image n first.
    """

    names: StringColumn
    ids: StringColumn
    folders: Sequence[str]
    folder: np.ndarray
    split: np.ndarray
    captions: StringColumn
    first: np.ndarray
    flags: np.ndarray
    not_text: dict[int, Any]
    rejected: np.ndarray
    unreadable: np.ndarray
    fields: dict[str, CodedColumn]
    without_id: list[str]
    where: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.names)


class _Field:
    """The values of one column, as codes of rows."""

    def __init__(self) -> None:
        self.codes, self.values = array("i"), dict[str, int]()

    def add(self, row: int, value: str) -> None:
        if row > len(self.codes):
            self.codes.extend([-1] * (row - len(self.codes)))
        if row == len(self.codes):  # else the column was there twice, of which the first counts
            self.codes.append(self.values.setdefault(value, len(self.values)))


class RecordRows:
    """Collects rows, an image each, with its captions and fields; rows of the same image become one record.

    Of fields that are not `asked` for, those are dropped that have many values.
    """

    def __init__(self, asked: Sequence[str] | None) -> None:
        self._asked = frozenset(asked or ())
        self._names, self._ids = StringBuilder(), StringBuilder()
        self._folders: dict[str, int] = {}
        self._sources: list[Callable[[int], str]] = []
        self._begins, self._folder = array("q"), array("i")  # of sources: their first row, and their folder
        self._split, self._entry = array("b"), array("q")
        self._captions, self._flags, self._of = StringBuilder(), array("B"), array("i")
        self._not_text: dict[int, Any] = {}
        self._rejected: dict[int, int] = {}
        self._unreadable: list[int] = []
        self._without_id: dict[int, str] = {}
        self._fields: dict[str, _Field] = {}
        self._dropped: set[str] = set()

    def begin_source(self, folder: str, where: Callable[[int], str]) -> None:
        """The rows that follow are of another file, in `folder`; `where` says which place its entry of a number is."""
        self._sources.append(where)
        self._begins.append(len(self._split))
        self._folder.append(self._folders.setdefault(folder, len(self._folders)))

    def add(self, name: str, split: str | None, entry: int) -> None:
        """Begin the row that entry `entry` of the source is; what is added next belongs to it."""
        self._names.append(name)
        self._split.append(NO_SPLIT if split is None else SPLITS.index(split))
        self._entry.append(entry)

    def add_many(
        self,
        names: Sequence[str],
        splits: Sequence[int],
        ids: Sequence[str] | None,
        captions: Sequence[str],
        entry: int,
    ) -> None:
        """Add rows with a caption each, the first of which is entry `entry`; `splits` are places in `SPLITS`, or -1."""
        begin, count = len(self._split), len(names)
        self._names.extend(names)
        self._split.extend(splits)
        self._entry.extend(range(entry, entry + count))
        if ids is not None:
            self._ids.extend(ids)
        if are_clean(captions):
            self._captions.extend(captions)
            self._flags.frombytes(bytes(count))
            self._of.extend(range(begin, begin + count))
        else:
            for row, caption in enumerate(captions, begin):
                self._add_caption(caption, row)

    def add_id(self, image_id: str, where: str, *, missing: bool) -> None:
        """Add the id of the row, if it has a column of its own; `missing`: the row has none there."""
        self._ids.append(image_id)
        if missing:
            self._without_id[len(self._split) - 1] = where

    def add_caption(self, text: Any) -> None:
        """Add a caption to the row."""
        self._add_caption(text, len(self._split) - 1)

    def _add_caption(self, text: Any, row: int) -> None:
        caption, flags = cleaned(text)
        if flags & NOT_TEXT:
            self._not_text[len(self._flags)] = text
        if caption and not has_word(caption):
            flags |= WORDLESS
        self._captions.append(caption)
        self._flags.append(flags)
        self._of.append(row)

    def add_captions(self, texts: Iterable[Any]) -> None:
        """Add captions to the row."""
        for text in texts:
            self.add_caption(text)

    def reject(self, count: int) -> None:
        """Count captions of the row that are deliberately left out."""
        self._rejected[len(self._split) - 1] = count

    def mark_unreadable(self) -> None:
        """Record that the row's text is already an issue, so that its missing caption is not another."""
        self._unreadable.append(len(self._split) - 1)

    def add_field(self, name: str, value: Any, row: int | None = None) -> bool:
        """Add the value of a column to the last row, or to `row`, if it is one that scores may be grouped by.

        False if the column is dropped, as it has too many values: add no more of it.
        """
        if not isinstance(value, str | int | float):
            return True
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if len(text) > _LONGEST_VALUE:
            return True
        if name in self._dropped:  # another table has the column too
            return False
        field = self._fields.get(name)
        if field is None:
            field = self._fields[name] = _Field()
        field.add(len(self._split) - 1 if row is None else row, text)
        if len(field.values) > _MOST_VALUES and name not in self._asked:
            self._dropped.add(name)
            del self._fields[name]
            return False
        return True

    def __len__(self) -> int:
        return len(self._split)

    def table(self) -> RecordTable:
        """Return the records, in the order of their first rows; nothing can be added from then on."""
        names, split = self._names.column(), np.frombuffer(self._split, np.int8)
        rows = np.diff([*self._begins, len(names)])
        folder = np.repeat(np.frombuffer(self._folder, np.int32), rows)
        firsts = first_rows(names, folder * (len(SPLITS) + 1) + split)
        heads = np.flatnonzero(firsts == np.arange(len(names)))
        record_of = np.searchsorted(heads, firsts)
        ids = self._ids.column()
        ids = ids if len(ids) else names
        owners = record_of[np.frombuffer(self._of, np.int32)]
        order, first = grouped(owners, len(heads))
        captions, flags = self._captions.column(), np.frombuffer(self._flags, np.uint8)
        not_text = self._not_text
        if order is not None:
            captions, flags = captions.take(order), flags[order]
            places = np.argsort(order)
            not_text = {int(places[place]): value for place, value in not_text.items()}
        rejected = np.zeros(len(heads), np.int64)
        for row, count in self._rejected.items():
            rejected[record_of[row]] += count
        unreadable = np.zeros(len(heads), bool)
        unreadable[record_of[self._unreadable]] = True
        every = len(heads) == len(names)
        return RecordTable(
            names if every else names.take(heads),
            ids if every else ids.take(heads),
            list(self._folders),
            folder[heads],
            split[heads].copy(),
            captions,
            first,
            flags,
            not_text,
            rejected,
            unreadable,
            self._kept_fields(record_of, len(heads)),
            [self._without_id[row] for row in sorted(self._without_id) if firsts[row] == row],
            lambda record: self._where(int(heads[record])),
        )

    def _where(self, row: int) -> str:
        return self._sources[bisect_right(self._begins, row) - 1](self._entry[row])

    def _kept_fields(self, record_of: np.ndarray, count: int) -> dict[str, CodedColumn]:
        """The fields that are asked for, or are the same in all rows of an image; of others the first row counts."""
        kept = {}
        for name, field in self._fields.items():
            codes = np.frombuffer(field.codes, np.int32)
            rows = np.flatnonzero(codes >= 0)
            of_records = np.full(count, -1, np.int32)
            of_records[record_of[rows][::-1]] = codes[rows][::-1]
            if name in self._asked or (of_records[record_of[rows]] == codes[rows]).all():
                kept[name] = CodedColumn(of_records, list(field.values))
        return kept


def grouped(owners: np.ndarray, count: int) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the order (M,) in which things lie by owner, of `count`; None if they do; and where each begins (N+1,)."""
    first = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=count))]).astype(np.int64)
    in_order = not (np.diff(owners) < 0).any()
    return None if in_order else np.argsort(owners, kind="stable"), first
