"""COCO as it is on disk: image folders and caption annotation files, of 2014 or 2017."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from easycap.data.assemble import finish, match, read_json
from easycap.data.issues import DataIssues, OnBadImage
from easycap.data.known_sets import incomplete
from easycap.errors import UserError
from easycap.metrics import read_instances
from easycap.registry import register
from easycap.types import Dataset, Example
from easycap.utils.ids import KnownIds, plain_number
from easycap.utils.paths import expanded

# The known sets that COCO's splits are.
_PUBLISHED = {("train2017", "val2017"): "coco", ("train2014", "val2014"): "coco2014"}


@register("data", "coco")
def coco(
    pixels: bool,
    with_tags: bool,
    *,
    root: str,
    train: str,
    val: str,
    test: str | None,
    on_bad_image: OnBadImage,
) -> Dataset:
    """Read COCO's own layout: `root`/annotations/captions_<split>.json and `root`/<split>/*.jpg.

    `train`, `val` and `test` name COCO's splits (train2017, val2017, train2014, ...); without `test` the
    validation split is the test split too, as COCO's own test captions are not public. Where
    `root`/annotations/instances_<split>.json is next to the captions of val or test, captions are also scored by the
    objects they name; objects are the tags of an image, `with_tags` those of training images too. Raises `UserError`
    naming the first file or folder that is missing.
    """
    folder = expanded(root)
    if not folder.is_dir():
        raise UserError(
            f"data.root={root} is not a folder: it should hold annotations/ and {train}/ as COCO ships them"
        )
    issues = DataIssues(on_bad_image, pixels=pixels)
    read: dict[str, list[Example]] = {}
    splits = {"train": train, "val": val, "test": test or val}
    for name in splits.values():
        if name not in read:
            scored = name in (splits["val"], splits["test"])
            read[name] = _read_split(folder, name, issues, scored=scored, with_tags=with_tags)
    known = any(example.annotations for examples in read.values() for example in examples)
    dataset = finish(
        "coco",
        {split: read[name] for split, name in splits.items()},
        issues,
        file=folder / "annotations",
        why_empty="its file lists no images",
        noted_as=splits,
        scorers=("coco_objects",) if known else (),
    )
    found = (split for split in ("train", "val") for _ in read[splits[split]])
    return dataset._replace(notes=tuple(incomplete(_PUBLISHED.get((train, val), ""), found)))


def _read_split(
    root: Path, split: str, issues: DataIssues, *, scored: bool, with_tags: bool
) -> list[Example]:
    path, images = root / "annotations" / f"captions_{split}.json", root / split
    for needed in (path, images) if issues.pixels else (path,):
        if not needed.exists():
            raise UserError(f"{needed} is missing: check data.root={root} and the split name {split!r}")
    files, captions, known = _entries(path, issues)
    # COCO's file of the training split has 450 MB, and training captions are not scored.
    objects = objects_of(root, split) if scored or with_tags else {}
    return match(
        split,
        ((image_id, images / name) for image_id, name in files),
        captions,
        issues,
        file=path,
        annotations=objects if scored else None,
        tags=tags_of(objects),
        hint=known.suggestion,
    )


def _entries(path: Path, issues: DataIssues) -> tuple[list[tuple[str, str]], list[tuple[str, Any]], KnownIds]:
    """The images (id, file name), sorted by id, and the captions (id, text) of a file; numeric ids are normalised.

    Captions that spell an image id differently, or give its file name, get its id if that is unambiguous.
    """
    stored = read_json(path, "a COCO caption file")
    images, annotations = (
        stored.get(k) if isinstance(stored, dict) else None for k in ("images", "annotations")
    )
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise UserError(f"{path} is not a COCO caption file: it must have the lists images and annotations")
    files: list[tuple[str, str]] = []
    for number, entry in enumerate(images):
        if what := missing_in(entry, {"id": (int, float, str), "file_name": (str,)}):
            issues.malformed(f"{path}, images[{number}]", what)
        else:
            files.append((id_of(entry["id"]), entry["file_name"]))
    captions: list[tuple[str, Any]] = []
    for number, entry in enumerate(annotations):
        if what := missing_in(entry, {"image_id": (int, float, str), "caption": None}):
            issues.malformed(f"{path}, annotations[{number}]", what)
        else:
            captions.append((id_of(entry["image_id"]), entry["caption"]))
    known = KnownIds((image_id for image_id, _ in files), {name: image_id for image_id, name in files})
    meant = known.resolve(image_id for image_id, _ in captions)
    for name in meant:
        if name not in known.known:
            issues.fixed_alike(name, path, "has captions with differently written image ids: matched")
    return sorted(files, key=_in_order), [(meant.get(one, one), text) for one, text in captions], known


def _in_order(file: tuple[str, str]) -> tuple[int, int, str, str]:
    """Numbers before texts."""
    image_id, name = file
    return (0, int(image_id), "", name) if image_id.isdecimal() else (1, 0, image_id, name)


def id_of(value: Any) -> str:
    """Return an id as text, with numbers normalised ("000139", 139.0 -> "139") as COCO's ids are numbers."""
    plain = plain_number(value) if not isinstance(value, str) or value.strip(" 0123456789.") == "" else None
    return str(value) if plain is None else plain


def missing_in(entry: Any, wanted: Mapping[str, tuple[type, ...] | None]) -> str | None:
    """Return what is wrong with an entry that should have the keys `wanted` {key: types or None}, if anything."""
    if not isinstance(entry, dict):
        return f"is not an object with {', '.join(wanted)}: {json.dumps(entry)[:40]}"
    for key, kinds in wanted.items():
        if key not in entry:
            return f"has no {key!r}; it has {', '.join(map(repr, list(entry)[:8])) or 'nothing'}"
        if kinds and (not isinstance(entry[key], kinds) or isinstance(entry[key], bool)):
            names = {int: "a whole number", float: "a number", str: "text", list: "a list"}
            return f"has {key!r} {json.dumps(entry[key])[:40]}, which is not {' or '.join(names[k] for k in kinds)}"
    return None


def tags_of(objects: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return {id: tags} of the annotations that `objects_of` gives."""
    return {image_id: note["objects"] for image_id, note in objects.items()}


def objects_of(root: Path, split: str) -> dict[str, Any]:
    """Return {id: annotations} from `root`/annotations/instances_<split>.json, nothing if it is not there."""
    path = root / "annotations" / f"instances_{split}.json"
    found = read_instances(path) if path.is_file() else {}
    return {id_of(image_id): note for image_id, note in found.items()}
