"""Captions and references on disk: COCO's files, Karpathy's and plain JSON, with errors that say what is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from easycap.errors import UserError, json_fault
from easycap.metrics.corpus import normal_id

# Bytes. Ordinary captions need five times their file's size in memory, captions of a million words thirty times.
# COCO's largest caption file has 92 MB.
_LARGEST = 200_000_000


def read_captions(path: Path) -> list[dict[str, Any]] | dict[str, Any]:
    """Return the rows of a COCO results or annotation file, or {id: caption}; raises `UserError` for another file."""
    content = read_file(path)
    if isinstance(content, dict) and (rows := _annotations(content)) is not None:
        return rows
    if not isinstance(content, list | dict):
        raise UserError(f"{str(path)!r} holds no captions; it must be a COCO results list or {{id: caption}}")
    return content


def read_references(path: Path, *, split: str | None = None) -> dict[str, list[Any]]:
    """Return {id: references} of a COCO annotation file, of one of Karpathy's or of such a JSON.

    From a Karpathy file, those of `split`, which may be omitted if there is only one. Raises `UserError` for any other
    file.
    """
    content = read_file(path)
    if _are_captions(content):
        raise UserError(
            f"{str(path)!r} holds captions, one per image, not references: captions come first, references second, "
            "a COCO annotation file or {id: [reference, ...]}"
        )
    if not isinstance(content, dict):
        raise UserError(
            f"{str(path)!r} holds no references; it must be a COCO annotation file or {{id: [reference, ...]}}"
        )
    if (rows := _annotations(content)) is None:
        return _of_karpathy(path, content["images"], split) if _is_karpathy(content) else content
    references: dict[str, list[Any]] = {}
    for number, row in enumerate(rows):
        if not {"image_id", "caption"} <= row.keys():
            raise UserError(
                f"annotation {number} of {str(path)!r} has no image_id or no caption: {str(row)[:80]}"
            )
        references.setdefault(normal_id(row["image_id"]), []).append(row["caption"])
    return references


def _are_captions(content: Any) -> bool:
    """Whether a file's content is a system's captions: a COCO results list, or {id: caption}."""
    if isinstance(content, dict):
        return bool(content) and all(isinstance(caption, str) for caption in content.values())
    return (
        bool(content)
        and isinstance(content, list)
        and all(isinstance(row, dict) and {"image_id", "caption"} <= row.keys() for row in content)
    )


def _annotations(content: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of a COCO annotation file; None for other files."""
    rows = content.get("annotations")
    return rows if isinstance(rows, list) and all(isinstance(row, dict) for row in rows) else None


def _is_karpathy(content: Mapping[str, Any]) -> bool:
    entries = content.get("images")
    return isinstance(entries, list) and all(isinstance(e, dict) and "sentences" in e for e in entries)


def _of_karpathy(path: Path, entries: Sequence[dict[str, Any]], split: str | None) -> dict[str, list[Any]]:
    """{id: sentences}; ids are COCO's, else file names without their suffix."""
    splits = sorted({str(entry.get("split")) for entry in entries})
    if split not in splits and len(splits) > 1:
        raise UserError(
            f"{str(path)!r} has several splits; choose one with --split {' or --split '.join(splits)}"
        )
    references: dict[str, list[Any]] = {}
    for number, entry in enumerate(entries):
        if split not in splits or entry.get("split") in (split, _FURTHER.get(split or "")):
            try:
                image_id = normal_id(entry["cocoid"]) if "cocoid" in entry else Path(entry["filename"]).stem
                references[image_id] = [sentence["raw"] for sentence in entry["sentences"]]
            except (KeyError, TypeError) as error:
                what = f"lacks a filename, or the raw text of a sentence ({type(error).__name__}: {error})"
                raise UserError(f"{path}, images[{number}] {what}") from None
    return references


_FURTHER = {"train": "restval"}  # images of val2014 that are commonly trained on


def existing(path: Path) -> Path:
    """Return `path`; raises `UserError` if it is not a file."""
    if not path.is_file():
        raise UserError(f"{str(path)!r} is not a file; check the path")
    return path


def read_file(path: Path) -> Any:
    """Return the content of a JSON file; raises `UserError` saying what is wrong, including repeated keys."""
    try:
        size = existing(path).stat().st_size
        if size > _LARGEST:
            raise UserError(
                f"{str(path)!r} has {size / 1e6:,.0f} MB, more than the limit of {_LARGEST / 1e6:,.0f} MB; "
                "if it really holds captions, score it in parts"
            )
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file, object_pairs_hook=partial(_unique, path))
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{str(path)!r} cannot be read: {json_fault(error)}") from None


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f"{str(path)!r}: the key {twice!r} appears twice; keep one")
    return found
