"""Karpathy's files: COCO's own ids and folders of either year, Flickr's names, splits with and without restval."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.small_data import read_set
from PIL import Image

from easycap.types import Dataset

SPLITS = {9: "train", 25: "restval", 30: "val", 42: "test"}


def entry(number: int, split: str, **more: Any) -> dict[str, Any]:
    return {"split": split, "sentences": [{"raw": f"A photo of {number}."}, {"raw": "x"}], **more}


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    entries = []
    for number, split in SPLITS.items():
        folder = "train2014" if split == "train" else "val2014"
        name = f"COCO_{folder}_{number:012d}.jpg"
        entries.append(entry(number, split, cocoid=number, filepath=folder, filename=name))
        save(tmp_path / folder / name)
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": entries}))
    return tmp_path


def save(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (6, 6)).save(path)


def read(root: Path, *overrides: str) -> Dataset:
    return read_set(root, "coco_karpathy", *overrides)


def ids(dataset: Dataset) -> dict[str, list[str]]:
    return {split: [example.id for example in examples] for split, examples in dataset.splits.items()}


def test_restval_is_trained_on_if_wanted(coco: Path) -> None:
    assert ids(read(coco)) == {"train": ["9", "25"], "val": ["30"], "test": ["42"]}
    assert ids(read(coco, "restval=false"))["train"] == ["9"]
    assert read(coco).splits["test"][0].references == ("A photo of 42.", "x")


def test_a_part_of_the_published_images_is_noted(coco: Path) -> None:
    (note,) = read(coco).notes
    assert note.startswith("4 of 123,287 images of coco_karpathy (2 of 113,287 of train, 1 of 5,000 of val,")
    assert not read(coco, "restval=false").notes


def test_the_folders_of_2017_hold_the_same_images(coco: Path) -> None:
    for number in SPLITS:
        save(coco / ("val2017" if number == 25 else "train2017") / f"{number:012d}.jpg")
    for folder in ("train2014", "val2014"):
        shutil.rmtree(coco / folder)
    dataset = read(coco)
    assert ids(dataset) == {"train": ["9", "25"], "val": ["30"], "test": ["42"]}
    folders = [example.image.path.parent.name for example in dataset.splits["train"]]
    assert folders == ["train2017", "val2017"]


def test_val_and_test_are_scored_by_the_objects_of_val2014(coco: Path) -> None:
    assert read(coco).scorers == ()
    instances = {
        "images": [{"id": 30}, {"id": 42}],
        "annotations": [{"image_id": 42, "category_id": 3}],
        "categories": [{"id": 3, "name": "car"}],
    }
    (coco / "annotations").mkdir()
    (coco / "annotations" / "instances_val2014.json").write_text(json.dumps(instances))
    dataset = read(coco)
    assert dataset.scorers == ("coco_objects",)
    assert dataset.splits["test"][0].annotations["objects"] == ("car",)


def test_a_missing_photo_or_folder_is_named(coco: Path) -> None:
    (coco / "val2014" / f"COCO_val2014_{42:012d}.jpg").unlink()
    with pytest.raises(ValueError, match="3 of the 4 images .*val2014/COCO_val2014_000000000042.jpg', which"):
        read(coco)
    (coco / "dataset_coco.json").rename(coco / "elsewhere.json")
    with pytest.raises(ValueError, match="has no file dataset_coco.json"):
        read(coco)


@pytest.mark.parametrize("source", ["flickr8k", "flickr30k"])
def test_flickr_photos_are_known_by_their_names(tmp_path: Path, source: str) -> None:
    entries = [entry(number, split, filename=f"10{number}_a.jpg") for number, split in SPLITS.items()]
    (tmp_path / "dataset.json").write_text(json.dumps({"images": entries}))
    for one in entries:
        save(tmp_path / "photos" / one["filename"])
    dataset = read_set(tmp_path, source, "images=photos", "captions=dataset.json")
    assert dataset.name == source and dataset.notes[0].startswith("4 of ")
    assert ids(dataset) == {"train": ["109_a", "1025_a"], "val": ["1030_a"], "test": ["1042_a"]}


def test_flickr8k_comes_with_text_files_too(tmp_path: Path) -> None:
    names = {"train": ["1_a.jpg", "2_b.jpg"], "dev": ["3_c.jpg"], "test": ["4_d.jpg"]}
    lines = ["9_in_no_split.jpg.1#0\tx"]
    for stem, photos in names.items():
        (tmp_path / f"Flickr_8k.{stem}Images.txt").write_text("\n".join(photos) + "\n")
        for photo in photos:
            save(tmp_path / "Flicker8k_Dataset" / photo)
            lines += [f"{photo}#{number}\tCaption {number} of {photo} ." for number in range(2)]
    (tmp_path / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    dataset = read_set(tmp_path, "flickr8k")
    assert ids(dataset) == {"train": ["1_a", "2_b"], "val": ["3_c"], "test": ["4_d"]}
    assert dataset.notes[0].startswith("4 of 8,000 images of flickr8k (2 of 6,000 of train, ")
    assert dataset.splits["val"][0].references == ("Caption 0 of 3_c.jpg .", "Caption 1 of 3_c.jpg .")


def change(coco: Path, number: int, **changes: Any) -> None:
    """Change an entry of the file; None takes a key away."""
    stored = json.loads((coco / "dataset_coco.json").read_text())
    entry = stored["images"][number]
    entry |= changes
    for key in [key for key, value in changes.items() if value is None]:
        del entry[key]
    (coco / "dataset_coco.json").write_text(json.dumps(stored))


def test_ids_as_text_and_what_the_names_of_files_say(coco: Path) -> None:
    change(coco, 0, cocoid="9")
    change(coco, 1, cocoid=None, filepath=None)
    change(coco, 2, cocoid=30.0)
    dataset = read(coco)
    assert ids(dataset) == {"train": ["9", "25"], "val": ["30"], "test": ["42"]}
    (issue,) = dataset.issues
    assert issue.what.startswith("has no cocoid: taken from the image's name (1, e.g.")
    for number in SPLITS:
        save(coco / "train2017" / f"{number:012d}.jpg")
    (coco / "val2017").mkdir()
    (coco / "val2014").rename(coco / "gone")
    assert ids(read(coco)) == {"train": ["9", "25"], "val": ["30"], "test": ["42"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filename": 12}, r"images\[2\] names 'val2014/12', which is missing"),
        ({"cocoid": None, "filename": "photo.jpg"}, r"images\[2\] has no 'cocoid'"),
        ({"split": "vla"}, r"images\[2\] has the unknown split 'vla' .*; did you mean 'val'"),
        ({"sentences": "x"}, r"images\[2\] has no 'sentences\[\].raw'"),
        ({"sentences": [{"tokens": ["x"]}]}, r"images\[2\] has no 'sentences\[\].raw'"),
    ],
)
def test_odd_entries_are_named_by_their_place(coco: Path, changes: dict[str, Any], message: str) -> None:
    change(coco, 2, **changes)
    with pytest.raises(ValueError, match=message):
        read(coco)
    dataset = read(coco, "on_bad_image=skip")
    assert sorted(one for of in ids(dataset).values() for one in of) == ["25", "42", "9"]
    assert any(issue.dropped for issue in dataset.issues)


def test_a_split_that_no_entry_names_is_val(coco: Path) -> None:
    change(coco, 3, split="val")
    dataset = read(coco)
    assert ids(dataset)["test"] == ["30", "42"] and not dataset.issues
    assert "the data has no split test: val is test too" in dataset.notes
