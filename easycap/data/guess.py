"""Guess a folder's format: a known set, Hugging Face's formats, tables, texts next to the images, lines of captions."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from easycap.data.guess_tables import table_readings
from easycap.data.guess_texts import folder_readings, lines_readings, sidecar_readings
from easycap.data.image_files import files_below
from easycap.data.image_index import ImageIndex
from easycap.data.known_sets import recognised
from easycap.data.shards.tar_index import is_shard
from easycap.data.table_files import PARQUET
from easycap.data.table_settings import file_patterns, matching
from easycap.errors import UserError
from easycap.utils.shell import quoted
from easycap.utils.text import count_text

Settings = Mapping[str, Any]
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip", ".7z", ".rar")


class Reading(NamedTuple):
    """One way to read a folder: the option of `data=`, what to set, and why it was chosen, in words."""

    option: str
    settings: dict[str, str | None]
    why: str


def readings(folder: Path, settings_of: Callable[[str], Settings]) -> tuple[list[Reading], list[str]]:
    """Return the ways to read a folder, and a sentence for each file that cannot be read.

    `settings_of` gives the settings of an option of `data=`. Where the folder is a known set, only that is returned.
    Files are read as far as it takes to tell what they are: JSON as a whole, of other tables their first rows.
    """
    if folder.is_file():
        raise UserError(
            f"{folder} is a file; give its folder: easycap data guess {quoted(str(folder.parent))}"
        )
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    files = files_below(folder)
    if not files:
        raise UserError(f"{folder} has no files")
    known = recognised(folder.absolute().name, files)
    found = [r for name, mark in known.items() if (r := _known(folder, name, mark, settings_of(name)))]
    return (found, []) if found else _unknown(folder, files)


def _known(folder: Path, name: str, mark: str, settings: Settings) -> Reading | None:
    """The reading as a known set, with the splits that are not there set to null; None if none of them is."""
    changed: dict[str, str | None] = {"root": str(folder)}
    why = f"{mark} is a file of {name}"
    if settings["name"] == "tables" and settings["sidecar"] is None:
        parts = [split or "captions" for split in file_patterns(settings)]
        missing = [part for part in parts if not _is_there(folder, settings, part)]
        if len(missing) == len(parts):
            return None
        changed |= dict.fromkeys(missing)
        files = "its file of {} is" if len(missing) == 1 else "its files of {} are"
        why += f"; {files.format(' and '.join(missing))} missing" if missing else ""
    return Reading(name, changed, why)


def _is_there(folder: Path, settings: Settings, part: str) -> bool:
    """Whether the file of a split, and the list of its images where there should be one, are there."""
    files = file_patterns(settings)[None if part == "captions" else part]
    try:
        for pattern in filter(None, (files, settings["image_list"])):
            matching(folder, pattern, part, setting=part)
    except UserError:
        return False
    return True


def _unknown(folder: Path, files: list[str]) -> tuple[list[Reading], list[str]]:
    """The readings of a folder that is not a known set: of Hugging Face's formats, and of one of the others."""
    saved = _saved(files)
    files = [path for path in files if not any(path.startswith(f"{one}/") or not one for one in saved)]
    packed = [path for path in files if path.lower().endswith(PARQUET) and _has_images(folder / path)]
    files = [path for path in files if path not in packed]
    found = [
        Reading("huggingface", {"path": str(folder / one)}, f"{one or folder} was written by save_to_disk")
        for one in saved
    ]
    if packed:
        place = os.path.commonpath([Path(path).parent for path in packed])
        found.append(Reading("huggingface", {"path": str(folder / place)}, f"{packed[0]} contains images"))
    index = ImageIndex(folder, files)
    images = set(index.images)
    others = [path for path in files if path not in images]
    if not images:
        shards = [path for path in files if path.endswith(".tar") and is_shard(folder / path)][:1]
        if shards and not found:
            return [
                Reading("webdataset", {"root": str(folder)}, f"{shards[0]} holds images and their texts")
            ], []
        archives = [path for path in files if path.lower().endswith(_ARCHIVES)][:1]
        unpack = f"; {archives[0]} is an archive: unpack it first" if archives else ""
        return found, [] if found else [f"no images found below {folder}{unpack}"]
    tables, reasons, doubts = table_readings(folder, others, index)
    texts = [Reading("tables", settings, why) for settings, why in tables]
    if not texts:
        texts, more = _texts(folder, others, index)
        reasons = more if texts else [*reasons, *more]
    found += texts
    if not found and not reasons:
        reasons = doubts[:3]
    if not found and not reasons:
        kinds = sorted({Path(path).suffix or path for path in others})[:8]
        there = f"; other files: {', '.join(kinds)}" if kinds else ""
        reasons = [f"{count_text(len(images), 'image')} found, but no captions{there}"]
    return found, reasons


def _texts(folder: Path, others: Sequence[str], index: ImageIndex) -> tuple[list[Reading], list[str]]:
    """The readings by text files that are not tables."""
    if beside := sidecar_readings(folder, others, index):
        return [Reading("tables", settings, why) for settings, why in beside], []
    if own := folder_readings(folder, others, index):
        return [Reading("folder", settings, why) for settings, why in own], []
    lines, reasons = lines_readings(folder, others, index)
    return [Reading("tables", settings, why) for settings, why in lines], reasons


def _saved(files: Sequence[str]) -> list[str]:
    """The folders, "" for the folder itself, that save_to_disk wrote; none of them lies in another."""
    folders: dict[str, set[str]] = {}
    for path in files:
        parent, _, name = path.rpartition("/")
        folders.setdefault(parent, set()).add(name)
    single = {
        folder
        for folder, names in folders.items()
        if "state.json" in names and any(name.endswith(".arrow") for name in names)
    }
    several = {
        folder
        for folder, names in folders.items()
        if "dataset_dict.json" in names and any(one.rpartition("/")[0] == folder for one in single if one)
    }
    return sorted(several | {one for one in single if not one or one.rpartition("/")[0] not in several})


def _has_images(path: Path) -> bool:
    """Whether a Parquet file holds images themselves; without pyarrow it is read as a table, which says so."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq

        return any(_is_bytes(field.type, pa) for field in pq.read_schema(path))
    except (ImportError, OSError, ValueError):  # pyarrow's errors of damaged files are of these
        return False


def _is_bytes(kind: Any, pa: Any) -> bool:
    if pa.types.is_struct(kind):
        return any(_is_bytes(kind.field(number).type, pa) for number in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
