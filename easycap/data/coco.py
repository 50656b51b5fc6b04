"""COCO as it is on disk: image folders and caption annotation files."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from easycap.data.images import ImageFile
from easycap.metrics import read_instances
from easycap.registry import register
from easycap.types import Dataset, Example


@register("data", "coco")
def coco(*, root: str, train: str, val: str, test: str | None) -> Dataset:
    """Read COCO's own layout: `root`/annotations/captions_<split>.json and `root`/<split>/*.jpg.

    `train`, `val` and `test` name COCO's splits (train2017, val2017, train2014, ...); without `test` the
    validation split is the test split too, as COCO's own test captions are not public. Where
    `root`/annotations/instances_<split>.json lies beside the captions of val or test, captions are also scored by the
    objects they name. Raises `ValueError` naming the first file or folder that is missing.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"data.root={root} is no folder: it should hold annotations/ and {train}/ as COCO ships them"
        )
    read: dict[str, list[Example]] = {}
    splits = {"train": train, "val": val, "test": test or val}
    for name in splits.values():
        if name not in read:
            read[name] = _read_split(folder, name, with_objects=name in (splits["val"], splits["test"]))
    known = any(example.annotations for examples in read.values() for example in examples)
    scorers = ("coco_objects",) if known else ()
    return Dataset("coco", {split: read[name] for split, name in splits.items()}, scorers)


def _read_split(root: Path, split: str, *, with_objects: bool) -> list[Example]:
    path, images = root / "annotations" / f"captions_{split}.json", root / split
    for needed in (path, images):
        if not needed.exists():
            raise ValueError(f"{needed} is missing: check data.root={root} and the split name {split!r}")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        files = {entry["id"]: entry["file_name"] for entry in stored["images"]}
        captions: dict[int, list[str]] = defaultdict(list)
        for annotation in stored["annotations"]:
            captions[annotation["image_id"]].append(annotation["caption"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no COCO caption file ({type(error).__name__}: {error})") from None
    without = files.keys() - captions.keys()
    unknown = captions.keys() - files.keys()
    if without or unknown:
        raise ValueError(
            f"{path}: {len(without)} images without captions and captions of {len(unknown)} unknown images, "
            f"e.g. {sorted(without | unknown)[:3]}"
        )
    # COCO's file of the training split has 450 MB, and training captions are not scored.
    instances = root / "annotations" / f"instances_{split}.json"
    objects = read_instances(instances) if with_objects and instances.is_file() else {}
    return [
        Example(
            str(image_id),
            ImageFile(images / name),
            tuple(captions[image_id]),
            annotations=objects.get(str(image_id)),
        )
        for image_id, name in sorted(files.items())
    ]
