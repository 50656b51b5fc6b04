"""Karpathy's files dataset_coco.json, dataset_flickr8k.json and dataset_flickr30k.json: splits and captions in one.

Source: Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions" (CVPR 2015).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from easycap.data.assemble import finish, match, read_json
from easycap.data.coco import id_of, missing_in, objects_of, tags_of
from easycap.data.issues import DataIssues, OnBadImage
from easycap.data.known_sets import incomplete
from easycap.errors import UserError, while_reading
from easycap.registry import describe_choices, register
from easycap.types import Dataset, Example
from easycap.utils.paths import expanded

_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


@register("data", "coco_karpathy")
def coco_karpathy(
    pixels: bool, with_tags: bool, *, root: str, annotations: str, restval: bool, on_bad_image: OnBadImage
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
        DataIssues(on_bad_image, pixels=pixels),
        needs={"cocoid": (int, float, str), "filepath": (str,), "filename": (str,)},
        derive=_what_the_name_says,
        id_of=lambda entry: id_of(entry["cocoid"]),
        path_of=_paths(folder, pixels=pixels),
        dropped=() if restval else ("restval",),
        objects=objects,
        tags=tags_of(objects | (objects_of(folder, "train2014") if with_tags else {})),
    )


@register("data", "flickr8k")
def flickr8k(pixels: bool, *, root: str, images: str, annotations: str, on_bad_image: OnBadImage) -> Dataset:
    """Read Flickr8k: photos in `root`/<images>, captions and splits (6,000, 1,000, 1,000) in `root`/<annotations>.

    `annotations` is Karpathy's dataset_flickr8k.json; where it is not, Flickr8k's own text files with the same splits
    are read: Flickr8k.token.txt and Flickr_8k.<split>Images.txt. Ids are the names of the photos without .jpg.
    """
    folder = _folder(root, annotations)
    issues = DataIssues(on_bad_image, pixels=pixels)
    if not (folder / annotations).exists() and (folder / "Flickr8k.token.txt").exists():
        return _read_flickr8k_texts(folder, folder / images, issues)
    return _read_flickr("flickr8k", folder / annotations, folder / images, issues)


@register("data", "flickr30k")
def flickr30k(pixels: bool, *, root: str, images: str, annotations: str, on_bad_image: OnBadImage) -> Dataset:
    """Read Flickr30k: photos in `root`/<images>, captions and splits (29,000, 1,014, 1,000) in `root`/<annotations>.

    `annotations` is Karpathy's dataset_flickr30k.json. Ids are the names of the photos without .jpg.
    """
    folder = _folder(root, annotations)
    issues = DataIssues(on_bad_image, pixels=pixels)
    return _read_flickr("flickr30k", folder / annotations, folder / images, issues)


def _folder(root: str, annotations: str) -> Path:
    folder = expanded(root)
    if not folder.is_dir():
        raise UserError(f"data.root={root} is not a folder; it should hold the photos and {annotations}")
    return folder


def _read_flickr(name: str, file: Path, images: Path, issues: DataIssues) -> Dataset:
    return _read(
        name,
        file,
        issues,
        needs={"filename": (str,)},
        id_of=lambda entry: Path(entry["filename"]).stem,
        path_of=lambda entry: images / entry["filename"],
    )


# What every entry of Karpathy's files needs besides its file name.
_NEEDS = {"split": (str,), "sentences": (list,)}
_COCO_NAME = re.compile(r"COCO_([a-z]+\d{4})_0*(\d+)\.jpg")


def _what_the_name_says(entry: dict[str, Any]) -> dict[str, str]:
    """Return the id and the folder that an entry lacks, taken from COCO's file name of 2014."""
    found = _COCO_NAME.fullmatch(str(entry.get("filename")))
    known = {"cocoid": found[2], "filepath": found[1]} if found else {}
    return {key: value for key, value in known.items() if key not in entry}


def _read(
    name: str,
    file: Path,
    issues: DataIssues,
    *,
    needs: Mapping[str, tuple[type, ...]],
    id_of: Callable[[dict[str, Any]], str],
    path_of: Callable[[dict[str, Any]], Path],
    derive: Callable[[dict[str, Any]], dict[str, str]] = lambda entry: {},
    dropped: tuple[str, ...] = (),
    objects: dict[str, Any] | None = None,
    tags: dict[str, tuple[str, ...]] | None = None,
) -> Dataset:
    kind = "one of Karpathy's dataset_*.json"
    stored = read_json(file, kind)
    entries = stored.get("images") if isinstance(stored, dict) else None
    if not isinstance(entries, list):
        raise UserError(f"{file} is not {kind}: it must have a list called images")
    images: dict[str, list[tuple[str, Path]]] = {"train": [], "val": [], "test": []}
    captions: dict[str, list[tuple[str, str]]] = {split: [] for split in images}
    for number, entry in enumerate(entries):
        where = f"{file}, images[{number}]"
        with while_reading(where):
            if isinstance(entry, dict) and (known := derive(entry)):
                entry = entry | known
                issues.fixed_alike(
                    str(entry["filename"]), file, f"has no {' and no '.join(known)}: taken from filename"
                )
            what = missing_in(entry, {**_NEEDS, **needs})
            if what is None and entry["split"] not in _SPLITS:
                what = f"has the split {entry['split']!r}; {describe_choices(entry['split'], _SPLITS)}"
            if what is not None:
                issues.malformed(where, what)
            elif entry["split"] not in dropped:
                split, image_id = _SPLITS[entry["split"]], id_of(entry)
                images[split].append((image_id, path_of(entry)))
                captions[split] += ((image_id, text) for text in _sentences(where, entry, issues))
    splits: dict[str, list[Example]] = {
        split: match(
            split,
            images[split],
            captions[split],
            issues,
            file=file,
            annotations=objects if split != "train" else None,
            tags=tags,
        )
        for split in images
    }
    scorers = ("coco_objects",) if objects else ()
    dataset = finish(name, splits, issues, file=file, why_empty="no entry has this split", scorers=scorers)
    return _with_note(dataset, {split: len(of) for split, of in images.items()}, whole=not dropped)


def _with_note(dataset: Dataset, images: Mapping[str, int], *, whole: bool = True) -> Dataset:
    """The dataset, with a note if its files name fewer images {split: number} than they do as published."""
    found = (split for split, number in images.items() for _ in range(number))
    return dataset._replace(notes=tuple(incomplete(dataset.name, found))) if whole else dataset


def _sentences(where: str, entry: dict[str, Any], issues: DataIssues) -> Iterator[str]:
    for number, sentence in enumerate(entry["sentences"]):
        if what := missing_in(sentence, {"raw": (str,)}):
            issues.malformed(f"{where}, sentences[{number}]", what)
        else:
            yield sentence["raw"]


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
            raise UserError(f"{root} holds neither train2014/ and val2014/ nor train2017/ and val2017/")
        folders[split] = frozenset(os.listdir(root / split))

    def path_of(entry: dict[str, Any]) -> Path:
        usual = f"{id_of(entry['cocoid']):0>12}.jpg"
        for name in (usual, entry["filename"]):  # some keep the names of 2014 in folders of 2017
            for split, there in folders.items():
                if name in there:
                    return root / split / name
        return root / "train2017" / usual

    return path_of


def _read_flickr8k_texts(root: Path, images: Path, issues: DataIssues) -> Dataset:
    file = root / "Flickr8k.token.txt"
    captions: list[tuple[str, str]] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        name, tab, text = line.partition("\t")
        if not tab or "#" not in name:
            issues.malformed(f"{file}, line {number}", "is not NAME.jpg#NUMBER, a tab and a caption")
            continue
        captions.append((name.partition("#")[0].removesuffix(".jpg"), text))
    splits, listed_images = {}, {}
    for split, stem in (("train", "train"), ("val", "dev"), ("test", "test")):
        listed = root / f"Flickr_8k.{stem}Images.txt"
        if not listed.is_file():
            raise UserError(f"{listed} is missing: it names the images of the {split} split")
        names = [name.strip() for name in listed.read_text(encoding="utf-8").splitlines() if name.strip()]
        listed_images[split] = len(names)
        ids = {name.removesuffix(".jpg") for name in names}  # the archive has images that are in no split
        splits[split] = match(
            split,
            [(name.removesuffix(".jpg"), images / name) for name in names],
            [(image_id, text) for image_id, text in captions if image_id in ids],
            issues,
            file=file,
        )
    dataset = finish("flickr8k", splits, issues, file=root, why_empty="its list contains no photos")
    return _with_note(dataset, listed_images)
