"""Tables of captions in a folder that is not a known set: find the files, and the settings to read them."""

from __future__ import annotations

import glob
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from easycap.data.data_splits import SPLITS
from easycap.data.image_index import ImageIndex, split_words, with_split_words
from easycap.data.issues import DataIssues, OnBadImage
from easycap.data.json_tables import Entry
from easycap.data.table_columns import (
    MOST_SAMPLES,
    SPLIT_NAMES,
    SeveralCaptionColumns,
    TableColumns,
    guess_columns,
    samples_of,
)
from easycap.data.table_files import TABLES, table_entries
from easycap.data.table_settings import matching
from easycap.errors import UserError
from easycap.utils.ids import plain_number, without_suffix

Found = tuple[dict[str, str | None], str]  # the settings of data=tables, and why, in words
_OF_OBJECTS = {"bbox", "category_id", "segmentation", "keypoints"}  # COCO's annotations that are no captions
HEAD = 4_000_000  # characters: more than the rows that columns are guessed from
_SHARD = re.compile(r"(?<!\d)(?!(?:19|20)\d\d(?!\d))\d{3,}")


class _Table(NamedTuple):
    path: str
    split: str | None
    columns: TableColumns
    ids: frozenset[str]  # of images in COCO's format
    rejected: bool


def table_readings(
    folder: Path, files: Sequence[str], index: ImageIndex
) -> tuple[list[Found], list[str], list[str]]:
    """Return the readings of tables among `files` of a folder, why others cannot be read, and why .txt files cannot,
    which are more often no table than one; a sentence each.
    """
    stems = {without_suffix(path) for path in index.images}
    groups: dict[tuple[str, str, str], list[_Table]] = defaultdict(list)
    reasons: list[str] = []
    doubts: list[str] = []
    for path in files:
        beside = str(Path(path).with_suffix("")) in stems
        if Path(path.lower().removesuffix(".gz")).suffix not in TABLES or beside:
            continue
        try:
            tables = _tables(folder, path, index)
        except UserError as error:
            (doubts if path.lower().endswith(".txt") else reasons).append(str(error))
            continue
        alike = _SHARD.sub("#", with_split_words(path, "*"))
        for table in tables:
            groups[alike, table.columns.image, table.columns.caption].append(table)
    every = [table for group in groups.values() for table in group]
    splits = [table.split for table in every]
    if len(groups) > 1 and all(splits) and len(set(splits)) == len(splits):
        groups = {("", "", ""): every}  # their columns differ, and each is read by its own
    found = []
    for group in groups.values():
        try:
            found.append(_reading(folder, group))
        except UserError as error:
            reasons.append(str(error))
    return found, reasons, doubts


def _tables(folder: Path, path: str, index: ImageIndex) -> list[_Table]:
    """A file as a table of captions of images that are there, or as several where several columns could be the
    captions; `UserError` if it is none.
    """
    split = split_of_path(path)
    parent = path.rpartition("/")[0]
    is_json = path.lower().removesuffix(".gz").endswith(".json")
    rows = table_entries(folder / path, DataIssues(OnBadImage.skip), most=None if is_json else HEAD)
    entries = list(rows if is_json else islice(rows, MOST_SAMPLES))
    if not entries:
        raise UserError(f"{path} contains neither rows nor a list of objects")
    columns = partial(
        guess_columns,
        samples_of(entry.values for entry in entries),
        where=path,
        is_image=lambda name: index.knows(name, parent, split),
    )
    try:
        found = [columns()]
    except SeveralCaptionColumns as error:
        found = [columns(caption=caption) for caption in error.columns]
    except UserError:
        if is_json and any(entry.values.keys() & _OF_OBJECTS for entry in entries):
            return []
        raise
    return [_table(path, split, entries, one, is_json=is_json) for one in found]


def _table(
    path: str, split: str | None, entries: Sequence[Entry], columns: TableColumns, *, is_json: bool
) -> _Table:
    """A table of these first entries; `split` is the one that its path names."""
    if any(entry.split for entry in entries) or columns.split:
        split = None
    coco = is_json and all(_is_of_coco(entry, columns) for entry in entries)
    ids = frozenset(str(entry.values["id"]) for entry in entries) if coco else frozenset()
    return _Table(path, split, columns, ids, any("is_rejected" in entry.values for entry in entries))


def _is_of_coco(entry: Entry, columns: TableColumns) -> bool:
    """Whether an entry has the id of its image, as annotations joined with their images have."""
    if "id" not in entry.values or columns.image in ("id", "image_id"):
        return False
    image, own = entry.values.get("image_id", entry.values["id"]), entry.values["id"]
    return (plain_number(image) or image) == (plain_number(own) or own)


def _reading(folder: Path, group: Sequence[_Table]) -> Found:
    settings: dict[str, str | None] = {"root": str(folder)}
    parts: dict[str, list[str]] = defaultdict(list)
    named = all(table.split for table in group)
    for table in group:
        parts[table.split or "" if named else "captions"].append(table.path)
    for part in (part for part in ("captions", *SPLITS) if part in parts):
        settings[part] = pattern_of(folder, parts[part], part)
    columns = group[0].columns
    if all(table.columns == columns for table in group):
        settings |= {"image_column": columns.image, "caption_column": columns.caption}
        settings |= {"split_column": columns.split} if columns.split else {}
    ids = [table.ids for table in group]
    if all(ids) and len(frozenset().union(*ids)) == sum(map(len, ids)):
        settings["id_column"] = "id"
    if any(table.rejected for table in group):
        settings["rejected_column"] = "is_rejected"
    files = " and ".join(table.path for table in group[:3]) + (" ..." if len(group) > 3 else "")
    found = list(dict.fromkeys(table.columns.describe() for table in group))
    return settings, f"{files}: {'; or '.join(found)}"


def split_of_path(path: str) -> str | None:
    """Return the split that a path names, in its file name or else in a folder's."""
    for part in reversed(path.split("/")):
        if words := split_words(part):
            return SPLIT_NAMES[words[-1].lower()]
    return None


def pattern_of(folder: Path, paths: Sequence[str], part: str) -> str:
    """Return a pattern of `data.<part>` that names `paths` and no other file; `UserError` if there is none."""
    for pattern in _patterns(paths):
        try:
            files = matching(folder, pattern, part, setting=f"data.{part}")
        except UserError:
            continue
        if sorted(path.relative_to(folder).as_posix() for path in files) == sorted(paths):
            return pattern
    shown = " and ".join(paths[:3]) + (" ..." if len(paths) > 3 else "")
    raise UserError(f"no single pattern matches only {shown}: move or rename them, or set data.{part}")


def _patterns(paths: Sequence[str]) -> list[str]:
    """Patterns that name all of `paths`, and perhaps others."""
    if len(paths) == 1:
        return [paths[0]]
    escaped = [re.split(r"(\d+)", path) for path in paths]
    numbers = {"".join("*" if part.isdecimal() else glob.escape(part) for part in parts) for parts in escaped}
    letters = (
        ["".join(_one_of(set(at)) for at in zip(*paths, strict=True))]
        if len(set(map(len, paths))) == 1
        else []
    )
    splits = {with_split_words(pattern, "*") for pattern in numbers}
    return [
        *(numbers if len(numbers) == 1 else ()),
        *letters,
        *(splits if len(splits) == 1 else ()),
    ]


def _one_of(letters: set[str]) -> str:
    return glob.escape(next(iter(letters))) if len(letters) == 1 else f"[{''.join(sorted(letters))}]"
