"""Captions of any system, in COCO's results format, as {id: caption}, in a table, or as a folder of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from easycap.data.image_files import visible_files
from easycap.data.issues import DataIssues, OnBadImage
from easycap.data.table_files import LINES_OF_JSON, SEPARATED, read_text, table_entries
from easycap.errors import UserError
from easycap.metrics.caption_files import existing, read_captions
from easycap.metrics.corpus import captions_by_id

_TABLES = (*(ending for ending in SEPARATED if ending != ".txt"), *LINES_OF_JSON)
_IMAGE = ("image_id", "image", "id", "file_name", "filename", "file", "path")
_CAPTION = ("caption", "prediction", "generated", "text")


def read_any_captions(path: Path) -> dict[str, str]:
    """Return {image id or name: caption} of a file or folder.

    JSON is COCO's results format or {id: caption}; a CSV or JSONL file has columns for image and caption; a folder
    holds NAME.txt of each image. Raises `UserError` for another file, and for two captions of an image.
    """
    if path.is_dir():
        return _texts(path)
    if path.suffix.lower() not in (*_TABLES, ".json"):
        raise UserError(
            f"{path} is not a captions file: give COCO results as .json, a table ({', '.join(_TABLES)}), or a "
            "folder of .txt"
        )
    return captions_by_id(read_captions(path) if path.suffix.lower() == ".json" else _rows(existing(path)))


def _texts(folder: Path) -> dict[str, str]:
    files = [file for file in visible_files(folder) if file.suffix == ".txt"]
    if not files:
        raise UserError(f"{folder} holds no .txt files")
    names = (file.relative_to(folder).with_suffix("").as_posix() for file in files)
    return {name: " ".join(read_text(file).split()) for name, file in zip(names, files, strict=True)}


def _rows(path: Path) -> list[dict[str, Any]]:
    issues = DataIssues(OnBadImage.error, pixels=False)
    values = [dict(entry.values) for entry in table_entries(path, issues)]
    if issues.found:
        raise UserError(f"{issues.found[0].file} {issues.found[0].what}")
    if not values:
        raise UserError(f"{path} has no rows")
    image, caption = (_column(path, values[0], names) for names in (_IMAGE, _CAPTION))
    rows = []
    for number, row in enumerate(values, start=1):
        if row.get(image) in (None, "") or not isinstance(row.get(caption), str):
            raise UserError(f"{path}, row {number}: has no {image} or no {caption}")
        rows.append({"image_id": row[image], "caption": row[caption]})
    return rows


def _column(path: Path, row: Mapping[str, Any], names: Sequence[str]) -> str:
    found = next((name for name in names if name in row), None)
    if found is None:
        raise UserError(
            f"{path} has the columns {', '.join(map(str, row))}, none of them called {' or '.join(names)}: rename one"
        )
    return found
