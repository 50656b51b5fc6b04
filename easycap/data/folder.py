"""`data=folder`: a user's own images, with captions in a table or in a text file per image."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from easycap.data.findings import Findings, OnBadImage
from easycap.data.images import image_files
from easycap.data.reading import finish, match
from easycap.registry import describe_choices, register
from easycap.types import Dataset

_SPLIT_NAMES = {
    **{name: "train" for name in ("train", "training", "restval")},
    **{name: "val" for name in ("val", "valid", "validation", "dev")},
    "test": "test",
}


class _Row(NamedTuple):
    """One caption of an image, where it stands, and the split it is said to belong to."""

    image: str
    caption: Any
    split: str | None
    where: str


@register("data", "folder")
def folder(
    *,
    images: str,
    captions: str | None,
    image_column: str,
    caption_column: str,
    split_column: str | None,
    val_share: float,
    test_share: float,
    seed: int,
    on_bad_image: OnBadImage,
    pixels: bool,
) -> Dataset:
    """Read all images in the folder `images` and below it, hidden ones aside; an id is the path within the folder.

    `captions` is a CSV file (.tsv: tab-separated), a JSONL file, or a folder with NAME.txt for each NAME.jpg, a caption
    a line; null: those lie beside the images. Tables hold an image's id in `image_column` and a caption, in JSONL
    also a list of them, in `caption_column`; an image may have several rows. `split_column` holds train, val or test;
    where it is null, a hash of `seed` and id gives about `val_share` and `test_share` of the images to those splits:
    an image stays where it is when others come or go. Raises `ValueError` for whatever cannot be read so.
    """
    root = Path(images).expanduser()
    if not root.is_dir():
        raise ValueError(f"data.images={images} is no folder")
    if min(val_share, test_share) <= 0 or val_share + test_share >= 1:
        raise ValueError(
            f"data.val_share={val_share:g} and data.test_share={test_share:g} must be positive and below 1 together"
        )
    source = Path(captions).expanduser() if captions is not None else root
    files = {path.relative_to(root).as_posix(): path for path in image_files([root]) if path.name[0] != "."}
    findings = Findings(on_bad_image, pixels=pixels)
    if source.is_dir():
        if split_column is not None:
            raise ValueError(f"data.split_column={split_column} needs a table; {source} is a folder of texts")
        rows = list(_text_rows(source, files))
    else:
        rows = list(_table_rows(source, image_column, caption_column, split_column))
    split_of = _splits(rows, files, findings, seed=seed, val_share=val_share, test_share=test_share)
    splits = {
        split: match(
            split,
            ((image_id, path) for image_id, path in files.items() if split_of[image_id] == split),
            ((row.image, row.caption) for row in rows if split_of[row.image] == split),
            findings,
            file=source,
        )
        for split in ("train", "val", "test")
    }
    return finish("folder", splits, findings)


def _splits(
    rows: list[_Row],
    files: dict[str, Path],
    findings: Findings,
    *,
    seed: int,
    val_share: float,
    test_share: float,
) -> dict[str, str]:
    """The split of each image, of unknown ones too; the first row's counts."""
    splits: dict[str, str] = {}
    for row in rows:
        if row.split is None:
            continue
        if row.split.strip().lower() not in _SPLIT_NAMES:
            raise ValueError(
                f"{row.where}: {row.split!r} is no split; {describe_choices(row.split, _SPLIT_NAMES)}"
            )
        split = _SPLIT_NAMES[row.split.strip().lower()]
        if splits.setdefault(row.image, split) != split:
            raise ValueError(f"{row.where}: image {row.image!r} is in {splits[row.image]} and in {split}")
    by_column = bool(splits)
    for image_id in [*files, *(row.image for row in rows)]:
        if image_id not in splits:  # with a column: an image without a row, which `match` will tell of
            splits[image_id] = "train" if by_column else _hashed(image_id, seed, val_share, test_share)
    return splits


def _hashed(image_id: str, seed: int, val_share: float, test_share: float) -> str:
    digest = hashlib.blake2b(f"{seed}/{image_id}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    place = int.from_bytes(digest) / 2**64
    return "test" if place < test_share else "val" if place < test_share + val_share else "train"


def _text_rows(folder: Path, files: dict[str, Path]) -> Iterator[_Row]:
    for image_id in files:
        path = (folder / image_id).with_suffix(".txt")
        if path.is_file():
            for line in _text(path).split("\n"):
                if line.strip():
                    yield _Row(image_id, line, None, str(path))


def _table_rows(path: Path, image: str, caption: str, split: str | None) -> Iterator[_Row]:
    if not path.is_file():
        raise ValueError(f"data.captions={path} does not exist")
    readers = {".csv": _csv_rows, ".tsv": _csv_rows, ".jsonl": _json_rows}
    if path.suffix.lower() not in readers:
        raise ValueError(
            f"data.captions={path} must be a .csv, .tsv or .jsonl file, or a folder of .txt files"
        )
    wanted = {"image_column": image, "caption_column": caption} | ({"split_column": split} if split else {})
    for where, row in readers[path.suffix.lower()](path):
        for name, column in wanted.items():
            if row.get(column) is None:
                there = describe_choices(column, (str(key) for key in row if key is not None))
                raise ValueError(f"{where} has no {column!r} (data.{name}); {there}")
        texts = row[caption] if isinstance(row[caption], list) else [row[caption]]
        for text in texts:
            yield _Row(str(row[image]).removeprefix("./"), text, str(row[split]) if split else None, where)


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(
        StringIO(_text(path)), delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True
    )
    try:
        for row in reader:
            if None in row:
                raise ValueError(
                    f"{path}, line {reader.line_num} has more values than columns: put captions with commas in quotes"
                )
            yield f"{path}, line {reader.line_num}", row
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num} is no CSV ({error})") from None


def _json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is no JSON ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(
                f'{path}, line {number} is no JSON object, e.g. {{"image": ..., "caption": ...}}'
            )
        yield f"{path}, line {number}", row


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): save it as such") from None
