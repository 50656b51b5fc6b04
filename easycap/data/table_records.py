"""Reads the images that tables name, each with its captions, split and fields, for `data=tables`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from easycap.data.cells import (
    is_plain_text,
    texts_of,
    values_at,
)
from easycap.data.image_places import ImagePlaces
from easycap.data.issues import DataIssues, OnBadImage
from easycap.data.json_tables import KEY, VALUE, Entry
from easycap.data.plain_rows import plain_rows
from easycap.data.record_table import NO_SPLIT, RecordRows, RecordTable
from easycap.data.separated_tables import is_token_file
from easycap.data.table_batches import Batch, entries_of
from easycap.data.table_columns import MOST_SAMPLES, TableColumns
from easycap.data.table_fields import TableFields
from easycap.data.table_files import guess_from, lacks, table_batches, table_entries
from easycap.data.table_ids import id_of, rank_of_ids
from easycap.data.table_settings import Ids, TableSettings, matching
from easycap.data.table_splits import NOT_READ, NamedSplits, splits_of_folders
from easycap.data.text_files import read_text
from easycap.data.texts_beside import text_beside
from easycap.errors import UserError
from easycap.registry import describe_choices
from easycap.utils.string_column import StringColumn

_SIDECARS = 50  # JSON files beside images that columns are guessed from


class Records:
    """Reads tables below `root` into records; what is wrong with an entry goes to `issues`."""

    def __init__(
        self, root: Path, settings: TableSettings, issues: DataIssues, places: ImagePlaces | None
    ) -> None:
        self.root, self.settings, self.issues, self.places = root, settings, issues, places
        self._rows = RecordRows(settings.fields)
        self._has_ids = settings.id_column is not None or settings.ids is not Ids.as_is
        self._files: dict[str | None, Path] = {}
        self._splits = NamedSplits(root, settings, issues)
        self._folders: set[str] = set()
        self._fields = TableFields(self._rows, settings.fields)

    def table(self) -> RecordTable:
        """Return all records, in the order of the tables; where no split is named, folders of images may.

        Raises `UserError` for a field that is asked for and in no entry.
        """
        for name, listed in self._splits.listed_alone().items():
            self._begin(name, listed, 0, None)
        table = self._rows.table()
        for where in table.without_id:
            self.issues.malformed(where, f"has no {self.settings.id_column!r} (data.id_column)")
        for name in self.settings.fields or ():
            if self._fields.columns and name not in table.fields:
                there = describe_choices(name, sorted(self._fields.columns))
                raise UserError(f"data.fields has {name!r}, for which no entry has a value; {there}")
        if len(self._folders) > 1 and not self._has_ids:  # 0001.png of train/ and of val/ are two images
            folders = (table.folders[number] for number in table.folder.tolist())
            table.ids = StringColumn.of(
                f"{folder}/{name}" if folder else name
                for folder, name in zip(folders, table.ids, strict=True)
            )
        if (table.split == NO_SPLIT).all() and (split := splits_of_folders(table.names)) is not None:
            table.split = split
        return table

    def ranks(self, table: RecordTable) -> np.ndarray | None:
        """Return the place (N,) of each record in the order that is asked for, None for that of the tables."""
        if self.settings.sort_by_id:
            return rank_of_ids(table.ids)
        if not self._splits.listed:
            return None
        places = {name: place for place, name in enumerate(self._splits.listed)}
        return np.array([places[name] for name in table.names])

    def file_of(self, split: str) -> Path:
        """Return the file that the captions of a split come from, or the root."""
        return self._files.get(split) or self._files.get(None) or self.root

    # ------------------------------------------------------------------------------------------- sources

    def read_tables(self) -> None:
        """Read the tables that the settings name, or files of a caption a line for listed images."""
        settings = self.settings
        patterns = settings.patterns()
        if not patterns:
            raise UserError(
                "data=tables needs data.captions, or data.train, data.val and data.test, or data.sidecar; `easycap "
                "data guess DIR` finds them"
            )
        for split, pattern in patterns.items():
            setting = f"data.{split or 'captions'}"
            files = matching(self.root, pattern, split, setting=f"{setting}={vars(settings)[setting[5:]]}")
            self._files[split] = files[0]
            if settings.image_list is None:
                for path in files:
                    self._read_table(path, split)
            else:
                setting = f"data.image_list={settings.image_list}"
                (listed, *_) = matching(self.root, settings.image_list, split, setting=setting)
                self._read_lines(listed, files, split)

    def read_sidecars(self, suffix: str) -> None:
        """Read the file beside each image that has its name and `suffix`: captions a line each, or a JSON object."""
        assert self.places is not None
        root, images = self.places.root, self.places.index.images
        self._rows.begin_source("", lambda number: str((root / images[number]).with_suffix(suffix)))
        columns: TableColumns | None = None
        for number, name in enumerate(images):
            path = (root / name).with_suffix(suffix)
            self._begin(name, None, number, None)
            if not path.is_file():
                continue
            found = text_beside(path, self.issues)
            if isinstance(found, list):
                self._rows.add_captions(found)
            elif found is None:
                self._rows.mark_unreadable()
            else:
                columns = columns or self._guess_of_sidecars(images[number:], suffix)
                self._add(Entry(str(path), found), columns)

    def _guess_of_sidecars(self, images: Sequence[str], suffix: str) -> TableColumns:
        """The columns of the first JSON files beside images, of which the first can be read."""
        assert self.places is not None
        unheard = DataIssues(OnBadImage.skip)  # they are read again
        entries = []
        for name in images[:_SIDECARS]:
            path = (self.places.root / name).with_suffix(suffix)
            found = text_beside(path, unheard) if path.is_file() else None
            if isinstance(found, Mapping):
                entries.append(Entry(str(path), {**found, KEY: name}))
        return self._guess(iter(entries), Path(entries[0].where), KEY)

    def _read_lines(self, listed: Path, files: list[Path], split: str | None) -> None:
        names = [line.split("#")[0].strip() for line in read_text(listed).split("\n")]
        while names and not names[-1]:
            names.pop()
        self._rows.begin_source("", lambda number: f"{listed}, line {number + 1}")
        for path in files:
            lines = read_text(path).removesuffix("\n").split("\n")
            if len(lines) != len(names):
                raise UserError(
                    f"{path} has {len(lines):,} lines and {listed} names {len(names):,} images: each line must be the "
                    "caption of the image in the same line"
                )
            for number, (name, text) in enumerate(zip(names, lines, strict=True)):
                self._begin(name, split, number, None)
                self._rows.add_captions([text])

    def _read_table(self, path: Path, split: str | None) -> None:
        folder = path.parent.relative_to(self.root).as_posix()
        folder = "" if folder == "." else folder
        self._folders.add(folder)
        self._fields.begin_table()
        batches = table_batches(path, self.issues, key=self.settings.entries, unused=self._fields.unused)
        first: list[Batch] = []
        while sum(map(len, first)) < MOST_SAMPLES and (batch := next(batches, None)) is not None:
            first.append(batch)
        columns = self._guess(entries_of(first), path, self.settings.image_column, folder=folder, split=split)
        if split is None and columns.split is None:
            self._splits.read_lists()
        below = self.settings.folder_of(split)
        self._rows.begin_source(folder, lambda number: self._where(path, number))
        number = 0
        for batch in chain(first, batches):
            plain = None if self._splits.listed else plain_rows(batch, columns, self.settings, split, below)
            if plain is not None:
                begin = len(self._rows)
                self._rows.add_many(*plain, number)
                self._fields.keep_columns(batch, begin)
                number += len(plain.names)
                continue
            for entry in batch.entries():
                self._read_entry(entry, columns, number, split, below)
                number += 1

    def _read_entry(
        self, entry: Entry, columns: TableColumns, number: int, split: str | None, below: str
    ) -> None:
        names = values_at(entry.values, columns.image)
        name = str(names[0]).strip() if names else ""
        if not name:
            self.issues.malformed(entry.where, lacks(columns.image, "image_column", entry.values))
            return
        name = name.replace("\\", "/").removeprefix("./")
        name = f"{below}/{name}" if below else name
        own = split or self._splits.of(entry, columns.split, name)
        if own != NOT_READ:
            self._begin(name, own, number, entry)
            self._add(entry, columns)

    def _where(self, path: Path, number: int) -> str:
        """The place of an entry, for which the table is read again: it is asked for once, in an error."""
        entries = table_entries(path, DataIssues(OnBadImage.skip), key=self.settings.entries)
        return next(islice(entries, number, None)).where

    def _guess(
        self,
        entries: Iterator[Entry],
        path: Path,
        image: str | None,
        *,
        folder: str = "",
        split: str | None = None,
    ) -> TableColumns:
        """The columns, of which those that are not given are guessed from the first entries."""
        places, settings = self.places, self.settings
        of_tokens = is_token_file(path)  # it has no names of columns, so none of the settings
        columns, _ = guess_from(
            entries,
            path,
            image=KEY if of_tokens else image,
            caption=VALUE if of_tokens else settings.caption_column,
            split=None if of_tokens else settings.split_column,
            is_image=None if places is None else lambda name: places.knows(name, folder, split),
        )
        self._fields.use((*columns, settings.id_column, settings.rejected_column))
        return columns

    # ------------------------------------------------------------------------------------------- records

    def _begin(self, name: str, split: str | None, number: int, entry: Entry | None) -> None:
        """Begin a row; without an entry it has no columns, and its id is its name."""
        self._rows.add(name, split, number)
        if not self._has_ids:
            return
        column, form = self.settings.id_column, self.settings.ids
        found = values_at(entry.values, column) if entry and column else [name]
        image_id = id_of(found[0] if found else None, name, form)
        if image_id is not None and not found:
            self.issues.fixed_alike(
                name, self.file_of(split or ""), f"has no {column}: taken from the image's name"
            )
        where = entry.where if entry else ""
        self._rows.add_id(name if image_id is None else image_id, where, missing=image_id is None)

    def _add(self, entry: Entry, columns: TableColumns) -> None:
        """Add an entry's captions and fields to the row."""
        rejected = (
            values_at(entry.values, self.settings.rejected_column) if self.settings.rejected_column else []
        )
        cells = values_at(entry.values, columns.caption)
        if len(cells) == 1 and not rejected and is_plain_text(cells[0]):
            self._rows.add_caption(cells[0])
            self._fields.keep(entry.values)
            return
        try:
            texts = [text for cell in cells for text in texts_of(cell)]
        except ValueError as error:
            self.issues.malformed(entry.where, f"has a caption that {error}")
            return
        if not cells and entry.has_caption:
            self.issues.malformed(entry.where, lacks(columns.caption, "caption_column", entry.values))
        elif rejected and _is_true(rejected[0]):
            self._rows.reject(len(texts))
        else:
            self._rows.add_captions(texts)
        self._fields.keep(entry.values)


def _is_true(value: Any) -> bool:
    return str(value).strip().lower() in ("true", "1", "1.0", "yes")
