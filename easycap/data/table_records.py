"""The images that tables name, each with its captions, split and fields, as `data=tables` reads them."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from easycap.data.cells import paths_of, texts_of, values_at
from easycap.data.image_index import ImageIndex
from easycap.data.issues import DataIssues
from easycap.data.json_tables import KEY, VALUE, Entry
from easycap.data.table_columns import SPLIT_NAMES, ColumnGuess, split_named
from easycap.data.table_files import guess_from, read_text, table_entries
from easycap.data.texts_beside import text_beside
from easycap.errors import UserError
from easycap.registry import describe_choices

logger = logging.getLogger(__name__)

# A column is kept as a field of its images if it has no more values than this, or is asked for.
_MOST_VALUES, _LONGEST_VALUE = 100, 100


class ColumnSettings(NamedTuple):
    """The settings data.image_column, ...: columns by name or path, null where they are guessed or absent."""

    image: str | None
    caption: str | None
    split: str | None
    id: str | None
    rejected: str | None
    fields: list[str] | None
    entries: str | None


@dataclass(slots=True)
class Record:
    """An image: its name as the table has it, the table's folder below the root, and what the table says of it."""

    id: str
    name: str
    folder: str
    split: str | None
    where: str
    texts: list[Any] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    rejected: int = 0
    unreadable: bool = False  # its text is among the issues
    file: Path = Path()


class Records:
    """Reads tables below `root` into records; what is wrong with an entry goes to `issues`."""

    def __init__(
        self, root: Path, columns: ColumnSettings, issues: DataIssues, index: ImageIndex | None
    ) -> None:
        self.root, self.columns, self.issues, self.index = root, columns, issues, index
        self._records: dict[tuple[str, str | None, str], Record] = {}
        self._files: dict[str | None, Path] = {}
        self._folders: set[str] = set()
        self._columns: set[str] = set()  # of the first entry
        self._varying: set[str] = set()  # columns that differ between the captions of one image

    def all(self) -> list[Record]:
        """Return all records, in the order of the tables; where no split is named, folders of images may."""
        records = list(self._records.values())
        if len(self._folders) > 1:  # 0001.png of train/ and of val/ are two images
            for record in records:
                if self.columns.id is None and record.folder:
                    record.id = f"{record.folder}/{record.id}"
        if records and not any(record.split for record in records):
            named = [split_named(record.name.partition("/")[0]) for record in records if "/" in record.name]
            if len(named) == len(records) and all(named) and len(set(named)) > 1:
                for record, split in zip(records, named, strict=True):
                    record.split = split
        return records

    def notes(self) -> list[str]:
        """Return in words what was left out on purpose."""
        captions = sum(record.rejected for record in self._records.values())
        images = sum(not record.texts and record.rejected > 0 for record in self._records.values())
        if not captions:
            return []
        return [
            f"{captions:,} captions that {self.columns.rejected!r} marks were left out, and with them {images:,} images"
        ]

    def file_of(self, split: str) -> Path:
        """Return the file that the captions of a split come from, or the root."""
        return self._files.get(split) or self._files.get(None) or self.root

    def fields_of(self, records: Iterable[Record]) -> dict[str, Mapping[str, str]]:
        """Return {id: fields}: columns with few values that are the same for all captions of an image."""
        kept = self._kept_fields
        return {
            record.id: {name: value for name, value in record.fields.items() if name in kept}
            for record in records
        }

    @cached_property
    def _kept_fields(self) -> set[str]:
        """The fields of all splits, once everything is read; `UserError` for one that is asked for and in no entry."""
        values: dict[str, set[str]] = {}
        for record in self._records.values():
            for name, value in record.fields.items():
                seen = values.setdefault(name, set())
                if len(seen) <= _MOST_VALUES:
                    seen.add(value)
        for name in self.columns.fields or ():
            if self._columns and name not in values:
                there = describe_choices(name, sorted(self._columns))
                raise UserError(f"data.fields has {name!r}, of which no entry has a value; {there}")
        kept = {n for n, seen in values.items() if n not in self._varying and len(seen) <= _MOST_VALUES}
        return kept | set(self.columns.fields or ())

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
        assert self.index is not None
        guess: ColumnGuess | None = None
        for name in self.index.images:
            path = (self.index.root / name).with_suffix(suffix)
            record = self._record(name, "", None, str(path))
            if not path.is_file():
                continue
            found = text_beside(path, self.issues)
            record.unreadable = found is None
            if isinstance(found, list):
                record.texts += found
            elif found is not None:
                entry = Entry(str(path), found)
                if guess is None:
                    guess, _ = self._guess(iter([Entry(str(path), {**found, KEY: name})]), path, KEY)
                self._add(record, entry, guess)

    def _read_lines(self, listed: Path, files: list[Path], split: str | None) -> None:
        names = [line.split("#")[0].strip() for line in read_text(listed).split("\n")]
        while names and not names[-1]:
            names.pop()
        for path in files:
            lines = read_text(path).removesuffix("\n").split("\n")
            if len(lines) != len(names):
                raise UserError(
                    f"{path} has {len(lines):,} lines and {listed} names {len(names):,} images: each line must be the "
                    "caption of the image in the same line"
                )
            for number, (name, text) in enumerate(zip(names, lines, strict=True), 1):
                self._record(name, "", split, f"{listed}, line {number}").texts.append(text)

    def _read_table(self, path: Path, split: str | None) -> None:
        folder = path.parent.relative_to(self.root).as_posix()
        folder = "" if folder == "." else folder
        self._folders.add(folder)
        entries = table_entries(path, self.issues, key=self.columns.entries)
        guess, entries = self._guess(entries, path, self.columns.image, folder=folder, split=split)
        for entry in entries:
            names = values_at(entry.values, guess.image)
            if not names or not str(names[0]).strip():
                there = describe_choices(guess.image, entry.values)
                self.issues.malformed(entry.where, f"has no {guess.image!r} (data.image_column); {there}")
                continue
            own = split or self._split_of(entry, guess)
            name = str(names[0]).strip().replace("\\", "/").removeprefix("./")
            self._add(self._record(name, folder, own, entry.where, entry), entry, guess)

    def _guess(
        self,
        entries: Iterator[Entry],
        path: Path,
        image: str | None,
        *,
        folder: str = "",
        split: str | None = None,
    ) -> tuple[ColumnGuess, Iterator[Entry]]:
        index = self.index
        return guess_from(
            entries,
            path,
            image=image,
            caption=self.columns.caption,
            split=self.columns.split,
            is_image=None
            if index is None or not index.images
            else lambda name: index.knows(name, folder, split),
        )

    def _split_of(self, entry: Entry, guess: ColumnGuess) -> str | None:
        if guess.split is None:
            return entry.split
        named = values_at(entry.values, guess.split)
        split = split_named(named[0]) if named else None
        if split is None:
            what = f"has the unknown split {named[0]!r}" if named else f"has no {guess.split!r}"
            self.issues.malformed(
                entry.where, f"{what} (data.split_column); {describe_choices('', SPLIT_NAMES)}"
            )
        return split or entry.split

    # ------------------------------------------------------------------------------------------- records

    def _record(
        self, name: str, folder: str, split: str | None, where: str, entry: Entry | None = None
    ) -> Record:
        key = (folder, split, name)
        if key not in self._records:
            image_id = name
            if self.columns.id is not None and entry is not None:
                found = values_at(entry.values, self.columns.id)
                image_id = str(found[0]) if found else name
                if not found:
                    self.issues.malformed(where, f"has no {self.columns.id!r} (data.id_column)")
            self._records[key] = Record(image_id, name, folder, split, where)
        return self._records[key]

    def _add(self, record: Record, entry: Entry, guess: ColumnGuess) -> None:
        """Add an entry's captions and fields to its image."""
        rejected = values_at(entry.values, self.columns.rejected) if self.columns.rejected else []
        cells = values_at(entry.values, guess.caption)
        try:
            texts = [text for cell in cells for text in texts_of(cell)]
        except ValueError as error:
            self.issues.malformed(entry.where, f"has a caption that {error}")
            return
        if not cells:
            there = describe_choices(guess.caption, entry.values)
            self.issues.malformed(entry.where, f"has no {guess.caption!r} (data.caption_column); {there}")
        elif rejected and _is_true(rejected[0]):
            record.rejected += len(texts)
        else:
            record.texts += texts
        self._keep_fields(record, entry, (guess.image, guess.caption, guess.split))

    def _keep_fields(self, record: Record, entry: Entry, used: tuple[str | None, ...]) -> None:
        asked = self.columns.fields
        if not self._columns:
            self._columns = {name for name, _ in paths_of(entry.values)}
        if asked is not None:
            found = {name: values[0] for name in asked if (values := values_at(entry.values, name))}
        else:
            not_fields = {*used, self.columns.id, self.columns.rejected, KEY, VALUE}
            found = {name: value for name, value in paths_of(entry.values) if name not in not_fields}
        for name, value in found.items():
            text = _as_text(value) if isinstance(value, str | int | float) else None
            if text is None or len(text) > _LONGEST_VALUE:
                continue
            if record.fields.setdefault(name, text) != text:
                self._varying.add(name)


def _is_true(value: Any) -> bool:
    return str(value).strip().lower() in ("true", "1", "1.0", "yes")


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


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
