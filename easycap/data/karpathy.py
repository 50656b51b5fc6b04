"""Karpathy's files dataset_coco.json, dataset_flickr8k.json and dataset_flickr30k.json: splits and captions in one.

Source: Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions" (CVPR 2015).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from easycap.data.coco import objects_of, tags_of
from easycap.data.findings import Findings, OnBadImage
from easycap.data.reading import finish, match, read_json
from easycap.registry import register
from easycap.types import Dataset, Example

_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


@register("data", "coco_karpathy")
def coco_karpathy(
    *, root: str, annotations: str, restval: bool, on_bad_image: OnBadImage, pixels: bool, with_tags: bool
) -> Dataset:
    """Read `root`/<annotations>, Karpathy's splits of COCO: 113,287 images to train on, 5,000 each for val and test.

    Images are those of COCO 2014 in `root`/train2014 and `root`/val2014, or of 2017, the same under other names.
    Without `restval` the 30,504 images of that name are not trained on. Where `root`/annotations/instances_val2014.json
    is, captions are also scored by the objects they name; objects are an image's tags, `with_tags` (then from
    instances_train2014.json too) those of training images. Ids are COCO's.
    """
    folder = _folder(root, annotations)
    objects = objects_of(folder, "val2014")  # Karpathy's val and test images are all from there
    return _read(
        "coco_karpathy",
        folder / annotations,
        Findings(on_bad_image, pixels=pixels),
        id_of=lambda entry: str(entry["cocoid"]),
        path_of=_paths(folder, pixels=pixels),
        left_out=() if restval else ("restval",),
        objects=objects,
        tags=tags_of(objects | (objects_of(folder, "train2014") if with_tags else {})),
    )


@register("data", "flickr8k")
def flickr8k(*, root: str, images: str, annotations: str, on_bad_image: OnBadImage, pixels: bool) -> Dataset:
    """Read Flickr8k: photos in `root`/<images>, captions and splits (6,000, 1,000, 1,000) in `root`/<annotations>.

    `annotations` is Karpathy's dataset_flickr8k.json; where it is not, Flickr8k's own text files with the same splits
    are read: Flickr8k.token.txt and Flickr_8k.<split>Images.txt. Ids are the names of the photos without .jpg.
    """
    folder = _folder(root, annotations)
    findings = Findings(on_bad_image, pixels=pixels)
    if not (folder / annotations).exists() and (folder / "Flickr8k.token.txt").exists():
        return _read_flickr8k_texts(folder, folder / images, findings)
    return _read_flickr("flickr8k", folder / annotations, folder / images, findings)


@register("data", "flickr30k")
def flickr30k(*, root: str, images: str, annotations: str, on_bad_image: OnBadImage, pixels: bool) -> Dataset:
    """Read Flickr30k: photos in `root`/<images>, captions and splits (29,000, 1,014, 1,000) in `root`/<annotations>.

    `annotations` is Karpathy's dataset_flickr30k.json. Ids are the names of the photos without .jpg.
    """
    folder = _folder(root, annotations)
    findings = Findings(on_bad_image, pixels=pixels)
    return _read_flickr("flickr30k", folder / annotations, folder / images, findings)


def _folder(root: str, annotations: str) -> Path:
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise ValueError(f"data.root={root} is no folder: it should hold the photos and {annotations}")
    return folder


def _read_flickr(name: str, file: Path, images: Path, findings: Findings) -> Dataset:
    return _read(
        name,
        file,
        findings,
        id_of=lambda entry: Path(entry["filename"]).stem,
        path_of=lambda entry: images / entry["filename"],
    )


def _read(
    name: str,
    file: Path,
    findings: Findings,
    *,
    id_of: Callable[[dict[str, Any]], str],
    path_of: Callable[[dict[str, Any]], Path],
    left_out: tuple[str, ...] = (),
    objects: dict[str, Any] | None = None,
    tags: dict[str, tuple[str, ...]] | None = None,
) -> Dataset:
    kind = "one of Karpathy's dataset_*.json"
    images: dict[str, list[tuple[str, Path]]] = {"train": [], "val": [], "test": []}
    captions: dict[str, list[tuple[str, str]]] = {split: [] for split in images}
    try:
        for entry in read_json(file, kind)["images"]:
            if entry["split"] in left_out:
                continue
            split, image_id = _SPLITS[entry["split"]], id_of(entry)
            images[split].append((image_id, path_of(entry)))
            captions[split] += ((image_id, sentence["raw"]) for sentence in entry["sentences"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} is not {kind} ({type(error).__name__}: {error})") from None
    splits: dict[str, list[Example]] = {
        split: match(
            split,
            images[split],
            captions[split],
            findings,
            file=file,
            annotations=objects if split != "train" else None,
            tags=tags,
        )
        for split in images
    }
    return finish(name, splits, findings, scorers=("coco_objects",) if objects else ())


def _paths(root: Path, *, pixels: bool) -> Callable[[dict[str, Any]], Path]:
    has_2017 = all((root / split).is_dir() for split in ("train2017", "val2017"))
    if (root / "val2014").is_dir() or not (pixels or has_2017):
        return _in_2014(root)
    return _in_2017(root)


def _in_2014(root: Path) -> Callable[[dict[str, Any]], Path]:
    return lambda entry: root / entry["filepath"] / entry["filename"]


def _in_2017(root: Path) -> Callable[[dict[str, Any]], Path]:
    """COCO 2017 has the images of 2014 as <number>.jpg, divided otherwise between its two folders."""
    folders = {}
    for split in ("val2017", "train2017"):
        if not (root / split).is_dir():
            raise ValueError(f"{root} holds neither train2014/ and val2014/ nor train2017/ and val2017/")
        folders[split] = root / split
    in_val = frozenset(os.listdir(folders["val2017"]))

    def path_of(entry: dict[str, Any]) -> Path:
        name = f"{entry['cocoid']:012d}.jpg"
        return folders["val2017" if name in in_val else "train2017"] / name

    return path_of


def _read_flickr8k_texts(root: Path, images: Path, findings: Findings) -> Dataset:
    file = root / "Flickr8k.token.txt"
    captions: list[tuple[str, str]] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        name, tab, text = line.partition("\t")
        if not tab or "#" not in name:
            raise ValueError(f"{file}, line {number} is not NAME.jpg#NUMBER, a tab and a caption")
        captions.append((name.partition("#")[0].removesuffix(".jpg"), text))
    splits = {}
    for split, stem in (("train", "train"), ("val", "dev"), ("test", "test")):
        listed = root / f"Flickr_8k.{stem}Images.txt"
        if not listed.is_file():
            raise ValueError(f"{listed} is missing: it names the images of the {split} split")
        names = [name.strip() for name in listed.read_text(encoding="utf-8").splitlines() if name.strip()]
        ids = {name.removesuffix(".jpg") for name in names}  # the archive has images that are in no split
        splits[split] = match(
            split,
            [(name.removesuffix(".jpg"), images / name) for name in names],
            [(image_id, text) for image_id, text in captions if image_id in ids],
            findings,
            file=file,
        )
    return finish("flickr8k", splits, findings)
