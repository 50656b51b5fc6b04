"""COCO as it is on disk: image folders and caption annotation files, of 2014 or 2017."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from easycap.data.findings import Findings, OnBadImage
from easycap.data.reading import finish, match, read_json
from easycap.metrics import read_instances
from easycap.registry import register
from easycap.types import Dataset, Example


@register("data", "coco")
def coco(
    *,
    root: str,
    train: str,
    val: str,
    test: str | None,
    on_bad_image: OnBadImage,
    pixels: bool,
    with_tags: bool,
) -> Dataset:
    """Read COCO's own layout: `root`/annotations/captions_<split>.json and `root`/<split>/*.jpg.

    `train`, `val` and `test` name COCO's splits (train2017, val2017, train2014, ...); without `test` the
    validation split is the test split too, as COCO's own test captions are not public. Where
    `root`/annotations/instances_<split>.json lies beside the captions of val or test, captions are also scored by the
    objects they name; objects are the tags of an image, `with_tags` those of training images too. Raises `ValueError`
    naming the first file or folder that is missing.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"data.root={root} is no folder: it should hold annotations/ and {train}/ as COCO ships them"
        )
    findings = Findings(on_bad_image, pixels=pixels)
    read: dict[str, list[Example]] = {}
    splits = {"train": train, "val": val, "test": test or val}
    for name in splits.values():
        if name not in read:
            scored = name in (splits["val"], splits["test"])
            read[name] = _read_split(folder, name, findings, scored=scored, with_tags=with_tags)
    known = any(example.annotations for examples in read.values() for example in examples)
    return finish(
        "coco",
        {split: read[name] for split, name in splits.items()},
        findings,
        scorers=("coco_objects",) if known else (),
    )


def _read_split(
    root: Path, split: str, findings: Findings, *, scored: bool, with_tags: bool
) -> list[Example]:
    path, images = root / "annotations" / f"captions_{split}.json", root / split
    for needed in (path, images) if findings.pixels else (path,):
        if not needed.exists():
            raise ValueError(f"{needed} is missing: check data.root={root} and the split name {split!r}")
    stored = read_json(path, "COCO caption file")
    try:
        files = sorted((entry["id"], entry["file_name"]) for entry in stored["images"])
        captions = [(str(entry["image_id"]), entry["caption"]) for entry in stored["annotations"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no COCO caption file ({type(error).__name__}: {error})") from None
    # COCO's file of the training split has 450 MB, and training captions are not scored.
    objects = objects_of(root, split) if scored or with_tags else {}
    return match(
        split,
        ((str(image_id), images / name) for image_id, name in files),
        captions,
        findings,
        file=path,
        annotations=objects if scored else None,
        tags=tags_of(objects),
    )


def tags_of(objects: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return {id: tags} of the annotations that `objects_of` gives."""
    return {image_id: note["objects"] for image_id, note in objects.items()}


def objects_of(root: Path, split: str) -> dict[str, Any]:
    """Return {id: annotations} from `root`/annotations/instances_<split>.json, nothing if it is not there."""
    path = root / "annotations" / f"instances_{split}.json"
    return read_instances(path) if path.is_file() else {}
