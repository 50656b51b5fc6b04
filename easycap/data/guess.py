"""How a folder can be read: a known set, tables of captions, texts beside the images, or lines of captions."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from easycap.data.image_files import visible_files
from easycap.data.image_index import ImageIndex
from easycap.data.issues import DataIssues, OnBadImage
from easycap.data.json_tables import Entry
from easycap.data.known_sets import recognised
from easycap.data.table_columns import SPLIT_NAMES, ColumnGuess, guess_columns, samples_of
from easycap.data.table_files import TABLES, read_text, table_entries
from easycap.data.table_records import matching
from easycap.errors import UserError
from easycap.utils.ids import without_suffix

Settings = Mapping[str, Any]
_PARTS = ("captions", "train", "val", "test")
_TEXTS = (".txt", ".caption", ".captions", ".cap", ".text", ".json")
_LARGEST_LIST = 50_000_000  # bytes; a list of images is smaller


class Reading(NamedTuple):
    """One way to read a folder: the option of `data=`, what to set, and why it was chosen, in words."""

    option: str
    settings: dict[str, str | None]
    why: str


def readings(folder: Path, settings_of: Callable[[str], Settings]) -> tuple[list[Reading], list[str]]:
    """Return the ways to read a folder, and what was seen that cannot be read, a sentence each.

    `settings_of` gives the settings of an option of `data=`. Where the folder is a known set, only that is returned.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    files = [path.relative_to(folder).as_posix() for path in visible_files(folder)]
    if not files:
        raise UserError(f"{folder} has no files")
    known = recognised(folder.absolute().name, files)
    found = [r for name, mark in known.items() if (r := _known(folder, name, mark, settings_of(name)))]
    if found:
        return found, []
    arrow = next((f for f in files if f.rpartition("/")[2] in ("dataset_dict.json", "state.json")), None)
    if arrow is not None:
        return [Reading("huggingface", {"path": str(folder)}, f"{arrow} is from save_to_disk")], []
    return _Seen(folder, files).readings()


def _known(folder: Path, name: str, mark: str, settings: Settings) -> Reading | None:
    """The reading as a known set, with the splits that are not there set to null; None if none of them is."""
    changed: dict[str, str | None] = {"root": str(folder)}
    why = f"{mark} is a file of {name}"
    if settings["name"] == "tables" and settings["sidecar"] is None:
        parts = [part for part in _PARTS if settings[part] is not None]
        missing = [part for part in parts if not _is_there(folder, settings[part], part)]
        if len(missing) == len(parts):
            return None
        changed |= dict.fromkeys(missing)
        why += f"; its file of {' and '.join(missing)} is missing" if missing else ""
    return Reading(name, changed, why)


def _is_there(folder: Path, pattern: str, part: str) -> bool:
    try:
        return bool(matching(folder, pattern, part, setting=part))
    except UserError:
        return False


class _Table(NamedTuple):
    path: str
    split: str | None
    columns: ColumnGuess
    ids: frozenset[str]  # of COCO's format
    rejected: bool


class _Seen:
    """What a folder holds that is no known set."""

    def __init__(self, folder: Path, files: list[str]) -> None:
        self.folder, self.files = folder, files
        self.index = ImageIndex(folder, [folder / path for path in files])
        images = set(self.index.images)
        self.others = [path for path in files if path not in images]
        self._stems = {without_suffix(path) for path in images}
        self.reasons: list[str] = []

    def readings(self) -> tuple[list[Reading], list[str]]:
        """Return the readings by tables; if there are none, by texts beside the images or by lines."""
        if not self.index.images and not any(path.endswith(".parquet") for path in self.files):
            return [], [f"there are no images below {self.folder}"]
        tables = list(self._tables()) or list(self._sidecars()) or list(self._lines())
        if not tables and not self.reasons:
            kinds = sorted({Path(path).suffix or path for path in self.others})[:8]
            there = f"; besides them there is {', '.join(kinds)}" if kinds else ""
            self.reasons.append(f"there are {len(self.index.images):,} images, but no captions{there}")
        return tables, self.reasons

    # -------------------------------------------------------------------------------------------- tables

    def _tables(self) -> Iterator[Reading]:
        groups: dict[tuple[str, str, str], list[_Table]] = defaultdict(list)
        for path in self.others:
            beside = str(Path(path).with_suffix("")) in self._stems
            if Path(path.lower().removesuffix(".gz")).suffix in TABLES and not beside:
                table = self._table(path)
                if table is not None:
                    groups[(_without_split(path), table.columns.image, table.columns.caption)].append(table)
        for group in groups.values():
            yield self._reading_of(group)

    def _table(self, path: str) -> _Table | None:
        """A file as a table of captions of images that are there; None, with a reason, if it is not."""
        split = split_of_path(path)
        parent = path.rpartition("/")[0]
        issues = DataIssues(OnBadImage.skip)
        try:
            entries = list(table_entries(self.folder / path, issues))
            samples = samples_of(entry.values for entry in entries)
            columns = guess_columns(
                samples, where=path, is_image=lambda name: self.index.knows(name, parent, split)
            )
        except UserError as error:
            if not path.endswith(".txt"):  # which are more often no table than one
                self.reasons.append(str(error))
            return None
        if any(entry.split for entry in entries) or columns.split:
            split = None
        coco = [entry for entry in entries if _is_of_coco(entry, columns)]
        ids = (
            frozenset(str(entry.values["id"]) for entry in coco) if len(coco) == len(entries) else frozenset()
        )
        rejected = any("is_rejected" in entry.values for entry in entries)
        return _Table(path, split, columns, ids, rejected)

    def _reading_of(self, group: list[_Table]) -> Reading:
        settings: dict[str, str | None] = {"root": str(self.folder)}
        splits = [table.split for table in group]
        if None in splits or len(group) == 1:
            settings["captions"] = _pattern([table.path for table in group])
        else:
            for split in dict.fromkeys(splits):
                settings[str(split)] = _pattern([table.path for table in group if table.split == split])
        columns = group[0].columns
        settings |= {"image_column": columns.image, "caption_column": columns.caption}
        settings |= {"split_column": columns.split} if columns.split else {}
        ids = [table.ids for table in group]
        if all(ids) and len(frozenset().union(*ids)) == sum(map(len, ids)):
            settings["id_column"] = "id"
        if any(table.rejected for table in group):
            settings["rejected_column"] = "is_rejected"
        files = " and ".join(table.path for table in group[:3]) + (" ..." if len(group) > 3 else "")
        return Reading("tables", settings, f"{files}: {columns.describe()}")

    # -------------------------------------------------------------------------------------------- texts

    def _sidecars(self) -> Iterator[Reading]:
        others = set(self.others)
        for suffix in _TEXTS:
            beside = [stem for stem in self._stems if f"{stem}{suffix}" in others]
            if beside:
                self.reasons.clear()
                why = f"{len(beside):,} of {len(self.index.images):,} images have a {suffix} file beside them"
                yield Reading("tables", {"root": str(self.folder), "sidecar": suffix}, why)
                return

    def _lines(self) -> Iterator[Reading]:
        """A file that lists images, with others of as many lines."""
        lists = {path: names for path in self.others if (names := self._listed(path))}
        for path, count in lists.items():
            split = split_of_path(path)
            of_split = [p for p in self.others if p not in lists and split_of_path(p) == split]
            captions = [p for p in of_split if _count_lines(self.folder / p) == count]
            if captions:
                self.reasons.clear()
                settings: dict[str, str | None] = {"root": str(self.folder), "image_list": path}
                settings["captions"] = _pattern(captions)
                yield Reading(
                    "tables", settings, f"{path} lists images, {' and '.join(captions)} their captions"
                )

    def _listed(self, path: str) -> int:
        if (self.folder / path).stat().st_size > _LARGEST_LIST:
            return 0
        try:
            names = read_text(self.folder / path).strip().split("\n")
        except UserError:
            return 0
        return len(names) if names[0] and all(self.index.knows(name.strip()) for name in names) else 0


def _is_of_coco(entry: Entry, columns: ColumnGuess) -> bool:
    return "id" in entry.values and "image_id" in entry.values and columns.image not in ("id", "image_id")


def _count_lines(path: Path) -> int:
    try:
        return read_text(path).removesuffix("\n").count("\n") + 1
    except UserError:
        return 0


_SPLIT_WORD = re.compile(rf"(?<![a-z])({'|'.join(SPLIT_NAMES)})(?![a-z])", re.IGNORECASE)
_SHARD = re.compile(r"(?<!\d)(?!(?:19|20)\d\d(?!\d))\d{3,}")


def split_of_path(path: str) -> str | None:
    """Return the split that a path names, in its file name or else in a folder's."""
    for part in reversed(path.split("/")):
        if words := _SPLIT_WORD.findall(part):
            return SPLIT_NAMES[words[-1].lower()]
    return None


def _without_split(path: str) -> str:
    """What files of one table have in common: the path without splits and numbers of shards."""
    return _SHARD.sub("#", _SPLIT_WORD.sub("*", path))


def _pattern(paths: list[str]) -> str:
    """A pattern of files that differ in numbers alone; of others all of them cannot be told by one."""
    if len(paths) == 1:
        return paths[0]
    patterns = {re.sub(r"\d+", "*", path) for path in paths}
    if len(patterns) > 1:
        patterns = {_SPLIT_WORD.sub("*", pattern) for pattern in patterns}
    if len(patterns) > 1:
        raise UserError(f"{' and '.join(paths)} cannot be named by one pattern: set data.captions yourself")
    return patterns.pop()
