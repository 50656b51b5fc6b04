"""Reads the images that tables name, each with its captions, split and fields, for `data=tables`."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from easycap.data.cells import (
    column_of,
    is_column_of,
    is_pattern,
    is_plain_text,
    paths_of,
    texts_of,
    values_at,
)
from easycap.data.data_splits import SPLITS
from easycap.data.image_places import ImagePlaces
from easycap.data.issues import DataIssues, OnBadImage
from easycap.data.json_tables import KEY, VALUE, Entry
from easycap.data.record_table import NO_SPLIT, RecordRows, RecordTable
from easycap.data.table_columns import SPLIT_NAMES, TableColumns, split_named
from easycap.data.table_files import guess_from, read_text, table_entries
from easycap.data.texts_beside import text_beside
from easycap.errors import UserError
from easycap.registry import describe_choices
from easycap.utils.string_column import StringColumn

_SIDECARS = 50  # JSON files beside images that columns are guessed from


class ColumnSettings(NamedTuple):
    """The settings data.image_column, ...: columns by name or path, null where they are guessed or absent."""

    image: str | None
    caption: str | None
    split: str | None
    id: str | None
    rejected: str | None
    fields: list[str] | None
    entries: str | None


class Records:
    """Reads tables below `root` into records; what is wrong with an entry goes to `issues`."""

    def __init__(
        self, root: Path, columns: ColumnSettings, issues: DataIssues, places: ImagePlaces | None
    ) -> None:
        self.root, self.columns, self.issues, self.places = root, columns, issues, places
        self._rows = RecordRows(columns.fields)
        self._files: dict[str | None, Path] = {}
        self._folders: set[str] = set()
        self._columns: set[str] = set()  # of the first entry
        self._not_fields: set[str | None] = set()  # columns of the table being read that are not fields
        self._unused: set[str] = set()  # columns of it that need not be read any more

    def table(self) -> RecordTable:
        """Return all records, in the order of the tables; where no split is named, folders of images may.

        Raises `UserError` for a field that is asked for and in no entry.
        """
        table = self._rows.table()
        for where in table.without_id:
            self.issues.malformed(where, f"has no {self.columns.id!r} (data.id_column)")
        for name in self.columns.fields or ():
            if self._columns and name not in table.fields:
                there = describe_choices(name, sorted(self._columns))
                raise UserError(f"data.fields has {name!r}, for which no entry has a value; {there}")
        if (
            len(self._folders) > 1 and self.columns.id is None
        ):  # 0001.png of train/ and of val/ are two images
            folders = (table.folders[number] for number in table.folder.tolist())
            table.ids = StringColumn.of(
                f"{folder}/{name}" if folder else name
                for folder, name in zip(folders, table.ids, strict=True)
            )
        if (table.split == NO_SPLIT).all() and (split := _splits_of_folders(table.names)) is not None:
            table.split = split
        return table

    def file_of(self, split: str) -> Path:
        """Return the file that the captions of a split come from, or the root."""
        return self._files.get(split) or self._files.get(None) or self.root

    # ------------------------------------------------------------------------------------------- sources

    def read_tables(self, patterns: Mapping[str | None, str | None], *, image_list: str | None) -> None:
        """Read the tables that `patterns` {split: pattern} name, or files of a caption a line for listed images."""
        if not any(patterns.values()):
            raise UserError(
                "data=tables needs data.captions, or data.train, data.val and data.test, or data.sidecar; `easycap "
                "data guess DIR` finds them"
            )
        for split, pattern in patterns.items():
            if pattern is None:
                continue
            files = matching(self.root, pattern, split, setting=f"data.{split or 'captions'}")
            self._files[split] = files[0]
            if image_list is None:
                for path in files:
                    self._read_table(path, split)
            else:
                self._read_lines(
                    matching(self.root, image_list, split, setting="data.image_list")[0], files, split
                )

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
        return self._guess(iter(entries), Path(entries[0].where), KEY)[0]

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
        self._unused = set()
        entries = table_entries(path, self.issues, key=self.columns.entries, unused=self._unused)
        columns, entries = self._guess(entries, path, self.columns.image, folder=folder, split=split)
        self._rows.begin_source(folder, lambda number: self._where(path, number))
        for number, entry in enumerate(entries):
            names = values_at(entry.values, columns.image)
            name = str(names[0]).strip() if names else ""
            if not name:
                there = describe_choices(columns.image, entry.values)
                self.issues.malformed(entry.where, f"has no {columns.image!r} (data.image_column); {there}")
                continue
            own = split or (entry.split if columns.split is None else self._split_of(entry, columns.split))
            self._begin(name.replace("\\", "/").removeprefix("./"), own, number, entry)
            self._add(entry, columns)

    def _where(self, path: Path, number: int) -> str:
        """The place of an entry, for which the table is read again: it is asked for once, in an error."""
        entries = table_entries(path, DataIssues(OnBadImage.skip), key=self.columns.entries)
        return next(islice(entries, number, None)).where

    def _guess(
        self,
        entries: Iterator[Entry],
        path: Path,
        image: str | None,
        *,
        folder: str = "",
        split: str | None = None,
    ) -> tuple[TableColumns, Iterator[Entry]]:
        places = self.places
        columns, entries = guess_from(
            entries,
            path,
            image=image,
            caption=self.columns.caption,
            split=self.columns.split,
            is_image=None if places is None else lambda name: places.knows(name, folder, split),
        )
        self._not_fields = {*columns, self.columns.id, self.columns.rejected, KEY, VALUE}
        return columns, entries

    def _split_of(self, entry: Entry, column: str) -> str | None:
        named = values_at(entry.values, column)
        split = split_named(named[0]) if named else None
        if split is None:
            what = f"has the unknown split {named[0]!r}" if named else f"has no {column!r}"
            self.issues.malformed(
                entry.where, f"{what} (data.split_column); {describe_choices('', SPLIT_NAMES)}"
            )
        return split or entry.split

    # ------------------------------------------------------------------------------------------- records

    def _begin(self, name: str, split: str | None, number: int, entry: Entry | None) -> None:
        """Begin a row; without an entry it has no columns, and its id is its name."""
        self._rows.add(name, split, number)
        if self.columns.id is not None:
            found = values_at(entry.values, self.columns.id) if entry else [name]
            where = entry.where if entry else ""
            self._rows.add_id(str(found[0]) if found else name, where, missing=not found)

    def _add(self, entry: Entry, columns: TableColumns) -> None:
        """Add an entry's captions and fields to the row."""
        rejected = values_at(entry.values, self.columns.rejected) if self.columns.rejected else []
        cells = values_at(entry.values, columns.caption)
        if len(cells) == 1 and not rejected and is_plain_text(cells[0]):
            self._rows.add_caption(cells[0])
            self._keep_fields(entry, columns)
            return
        try:
            texts = [text for cell in cells for text in texts_of(cell)]
        except ValueError as error:
            self.issues.malformed(entry.where, f"has a caption that {error}")
            return
        if not cells:
            there = describe_choices(columns.caption, entry.values)
            self.issues.malformed(entry.where, f"has no {columns.caption!r} (data.caption_column); {there}")
        elif rejected and _is_true(rejected[0]):
            self._rows.reject(len(texts))
        else:
            self._rows.add_captions(texts)
        self._keep_fields(entry, columns)

    def _keep_fields(self, entry: Entry, columns: TableColumns) -> None:
        asked = self.columns.fields
        if not self._columns:
            self._columns = {name for name, _ in paths_of(entry.values)}
        for name in asked or ():
            if values := values_at(entry.values, name):
                self._rows.add_field(name, values[0])
        if asked is None and not entry.values.keys() <= self._not_fields:
            for name, value in paths_of(entry.values):
                if name not in self._not_fields and not self._rows.add_field(name, value):
                    self._not_fields.add(name)
                    self._drop(name, columns, entry)

    def _drop(self, name: str, columns: TableColumns, entry: Entry) -> None:
        """Stop reading a column that is not a field, unless it is used otherwise."""
        for path in (*columns, self.columns.id, self.columns.rejected):
            if path is None:
                continue
            if column_of(path, entry.values) == name or (is_pattern(path) and is_column_of(name, path)):
                return
        self._unused.add(name)


def _splits_of_folders(names: StringColumn) -> np.ndarray | None:
    """The splits that the first folders of all names are called by, if there are several."""
    splits = np.full(len(names), NO_SPLIT, np.int8)
    for row, name in enumerate(names):
        folder, slash, _ = name.partition("/")
        split = split_named(folder) if slash else None
        if split is None:
            return None
        splits[row] = SPLITS.index(split)
    return splits if len(np.unique(splits)) > 1 else None


def _is_true(value: Any) -> bool:
    return str(value).strip().lower() in ("true", "1", "1.0", "yes")


def matching(root: Path, pattern: str, split: str | None, *, setting: str) -> list[Path]:
    """Return the files below `root` that a pattern names; `UserError` if there are none."""
    for alternative in pattern.split("|"):
        name = alternative.strip().replace("{split}", split or "")
        if (root / name).is_file():
            return [root / name]
        found = [Path(path) for path in glob.glob(str(Path(glob.escape(str(root))) / name), recursive=True)]
        if files := sorted(path for path in found if path.is_file()):
            return files
    raise UserError(f"{root} has no file {pattern.replace('{split}', split or '')} ({setting}={pattern})")
