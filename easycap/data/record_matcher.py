"""Turn records of tables into examples: `assemble.match`, but on columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from easycap.data.assemble import report_caption
from easycap.data.caption_checks import EMPTY, LINES, NOT_TEXT, SURROGATES, WORDLESS
from easycap.data.example_table import ExampleColumns, ExampleTable, ImageColumn
from easycap.data.issues import DataIssues
from easycap.data.record_table import RecordTable, grouped
from easycap.data.table_objects import TableObjects
from easycap.utils.string_column import first_rows

NO_OBJECTS = TableObjects()


class RecordMatcher:
    """Makes examples of records, of which `images` (N,) are the images; all splits share their columns."""

    def __init__(
        self,
        table: RecordTable,
        images: ImageColumn,
        issues: DataIssues,
        objects: TableObjects = NO_OBJECTS,
    ) -> None:
        self.issues, self.objects = issues, objects
        owners = np.repeat(np.arange(len(table)), np.diff(table.first))
        self._had_captions = np.diff(table.first) > 0
        self._left_out = (table.rejected > 0) | table.unreadable
        noted = np.flatnonzero(table.flags & (NOT_TEXT | EMPTY | LINES | SURROGATES))
        self._noted = [(int(owners[n]), int(table.flags[n]), table.not_text.get(int(n))) for n in noted]
        captions, first, flags = table.captions, table.first, table.flags
        usable = table.flags & (NOT_TEXT | EMPTY) == 0
        if not usable.all():
            captions, flags, owners = captions.take(np.flatnonzero(usable)), flags[usable], owners[usable]
            _, first = grouped(owners, len(table))
        self._wordless = flags & WORDLESS > 0
        self.columns = ExampleColumns(table.ids, images, captions, first, table.fields)

    def match(self, split: str, rows: np.ndarray, splits: Sequence[str], *, file: Path) -> ExampleTable:
        """Return the examples of records `rows` (K,), in their order; `splits` are all that they are.

        `file` is where the captions stand. Left out, or an error: a caption that is not text, an id that comes twice,
        an image without a caption or with captions that no metric finds a word in, or of which the objects are unknown
        where captions are scored by them.
        """
        rows = rows[self._had_captions[rows] | ~self._left_out[rows]]
        columns, wordless = self.columns, self._wordless
        of_split = np.zeros(len(columns.ids), bool)
        of_split[rows] = True
        for row, flags, value in self._noted:
            if of_split[row]:
                report_caption(split, columns.ids[row], flags, value, self.issues, file)
        hashes = np.sort(columns.ids.hashes()[rows])
        alike = bool((np.diff(hashes) == 0).any())
        firsts = rows[first_rows(columns.ids.take(rows), np.zeros(len(rows), np.int64))] if alike else rows
        if (twice := np.flatnonzero(firsts != rows)).size:
            for place in twice.tolist():
                name = columns.images.place(int(firsts[place])).name
                self._drop(split, int(rows[place]), f"has the id of {name}")
            columns, wordless = _merged(columns, wordless, rows, firsts)
            rows = rows[firsts == rows]
        counts = np.diff(columns.first)[rows]
        words = np.concatenate([[0], np.cumsum(~wordless)])
        with_words = words[columns.first[rows + 1]] > words[columns.first[rows]]
        for place in np.flatnonzero(~with_words).tolist():
            row = int(rows[place])
            what = "has no caption"
            if counts[place]:
                what += f" that contains a word: {columns.captions[int(columns.first[row])][:40]!r}"
            self._drop(split, row, what)
        rows = rows[with_words]
        if scored := self.objects.of(splits):
            known = np.fromiter((image_id in scored for image_id in columns.ids.at(rows)), bool, len(rows))
            for row in rows[~known].tolist():
                self._drop(split, row, "has no entry in the objects file, which must list all images or none")
            rows = rows[known]
        return ExampleTable(columns, rows.astype(np.int32), self.objects.tagged, scored)

    def _drop(self, split: str, row: int, what: str) -> None:
        columns = self.columns
        self.issues.drop(split, columns.ids[row], columns.images.place(row), what)


def _merged(
    columns: ExampleColumns, wordless: np.ndarray, rows: np.ndarray, firsts: np.ndarray
) -> tuple[ExampleColumns, np.ndarray]:
    """Columns in which the captions of `rows` belong to the records `firsts`, after their own."""
    owner = np.arange(len(columns.ids))
    owner[rows] = firsts
    order, first = grouped(np.repeat(owner, np.diff(columns.first)), len(owner))
    if order is None:
        return replace(columns, first=first), wordless
    return replace(columns, captions=columns.captions.take(order), first=first), wordless[order]
