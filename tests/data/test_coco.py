"""COCO's own folders as they are on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.small_data import read_set
from PIL import Image

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.train import create_task
from easycap.types import Dataset


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "annotations").mkdir()
    for split, ids in (("train2017", [9, 25]), ("val2017", [7])):
        (tmp_path / split).mkdir()
        for number in ids:
            Image.new("RGB", (6, 6)).save(tmp_path / split / f"{number:012d}.jpg")
        write(
            tmp_path,
            split,
            images=[{"id": number, "file_name": f"{number:012d}.jpg"} for number in ids],
            annotations=[{"image_id": n, "caption": f"caption {c} of {n}"} for c in range(2) for n in ids],
        )
    return tmp_path


def write(root: Path, split: str, **content: object) -> None:
    (root / "annotations" / f"captions_{split}.json").write_text(json.dumps(content))


def coco(*, root: str, on_bad_image: str = "error", **settings: str | None) -> Dataset:
    overrides = [f"{key}={'null' if value is None else value}" for key, value in settings.items()]
    return read_set(root, "coco", f"on_bad_image={on_bad_image}", *overrides)


def test_images_and_captions_meet(root: Path) -> None:
    dataset = coco(root=str(root), train="train2017", val="val2017", test=None)
    assert [example.id for example in dataset.splits["train"]] == ["9", "25"]
    assert dataset.splits["train"][1].references == ("caption 0 of 25", "caption 1 of 25")
    assert dataset.splits["train"][0].image.load().size == (6, 6)
    assert dataset.splits["test"] == dataset.splits["val"]


def test_a_part_of_the_published_images_is_noted(root: Path) -> None:
    *_, note = coco(root=str(root), train="train2017", val="val2017", test=None).notes
    assert note.startswith(
        "3 of 123,287 images of coco (2 of 118,287 of train, 1 of 5,000 of val) are in its"
    )


def test_objects_of_val_are_known_where_their_file_is(root: Path) -> None:
    splits = {"train": "train2017", "val": "val2017", "test": None}
    assert coco(root=str(root), **splits).scorers == ()
    content = {
        "images": [{"id": 7}],
        "annotations": [{"image_id": 7, "category_id": 3}],
        "categories": [{"id": 3, "name": "car"}],
    }
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    dataset = coco(root=str(root), **splits)
    assert dataset.scorers == ("coco_objects",)
    assert dataset.splits["val"][0].annotations["objects"] == ("car",)
    assert dataset.splits["train"][0].annotations is None
    assert dataset.splits["val"][0].tags == ("car",) and dataset.splits["train"][0].tags == ()


def test_what_is_missing_is_named(root: Path) -> None:
    with pytest.raises(ValueError, match="data.root=nowhere"):
        coco(root="nowhere", train="train2017", val="val2017", test=None)
    with pytest.raises(
        ValueError, match=r"has no file annotations/captions_val2014.json \(data.val=val2014\)"
    ):
        coco(root=str(root), train="train2017", val="val2014", test=None)


def test_a_broken_annotation_file_is_named(root: Path) -> None:
    (root / "annotations" / "captions_val2017.json").write_text('{"images": [')
    with pytest.raises(ValueError, match="captions_val2017.json is not valid JSON"):
        coco(root=str(root), train="train2017", val="val2017", test=None)


def test_images_without_captions_and_captions_without_images_are_reported(root: Path) -> None:
    known = {"id": 7, "file_name": f"{7:012d}.jpg"}
    captions = [{"image_id": 7, "caption": "x"}, {"image_id": 2, "caption": "x"}]
    write(root, "val2017", images=[known, {"id": 1, "file_name": "a.jpg"}], annotations=captions)
    splits = {"root": str(root), "train": "train2017", "val": "val2017", "test": None}
    with pytest.raises(ValueError, match=r"captions of the unknown image '2': .* data.on_bad_image=skip"):
        coco(**splits)
    dataset = coco(**splits, on_bad_image="skip")
    assert [example.id for example in dataset.splits["test"]] == ["7"]
    assert {(f.id, f.what) for f in dataset.issues} == {
        ("1", "has no caption"),
        ("", "has captions of the unknown image '2'"),
    }


def test_a_caption_that_is_no_text_is_told_and_the_others_of_its_image_are_kept(root: Path) -> None:
    known = [{"id": 7, "file_name": f"{7:012d}.jpg"}]
    captions = [{"image_id": 7, "caption": text} for text in ("a dog", None, 5)]
    write(root, "val2017", images=known, annotations=captions)
    splits = {"root": str(root), "train": "train2017", "val": "val2017", "test": None}
    with pytest.raises(ValueError, match=r"captions_val2017.json, annotations\[1\] has nothing in 'caption'"):
        coco(**splits)
    dataset = coco(**splits, on_bad_image="skip")
    assert dataset.splits["val"][0].references == ("a dog",)
    assert [f.what for f in dataset.issues if f.dropped] == [
        "has nothing in 'caption' (data.caption_column)",
        "has a caption that is not text: 5",
    ]


def test_ids_that_come_twice_or_in_two_splits_are_reported(root: Path) -> None:
    (root / "val2017" / "copy.jpg").touch()
    again = [{"id": 7, "file_name": f"{7:012d}.jpg"}, {"id": 7, "file_name": "copy.jpg"}]
    both = [*again, {"id": 9, "file_name": f"{9:012d}.jpg"}]
    write(root, "val2017", images=both, annotations=[{"image_id": n, "caption": "x"} for n in (7, 9)])
    splits = {"root": str(root), "train": "train2017", "val": "val2017", "test": None}
    with pytest.raises(ValueError, match="copy.jpg has the id of 000000000007.jpg"):
        coco(**splits)
    dataset = coco(**splits, on_bad_image="skip")
    assert [example.id for example in dataset.splits["val"]] == ["7"]
    assert {(f.id, f.what) for f in dataset.issues if f.dropped} == {
        ("7", "has the id of 000000000007.jpg"),
        ("9", "is already in the train split"),
    }


def test_words_and_document_frequencies_come_from_training_captions_alone(root: Path) -> None:
    """A word of the validation captions that leaked would make scores look better than they are."""
    of_val = [{"image_id": 7, "caption": text} for text in ("caption zebra", "caption of zebra")]
    write(root, "val2017", images=[{"id": 7, "file_name": f"{7:012d}.jpg"}], annotations=of_val)
    settings = ["data=coco", f"data.root={root}", "vocab.min_count=1", "device=cpu", "tracking=none"]
    task = create_task(check(compose(settings)[0]))
    vocabulary = task.vocabulary
    assert vocabulary.encode("zebra") == [vocabulary.unk_id]
    assert vocabulary.unk_id not in vocabulary.encode("caption of 9")
    surveys = task.surveys
    assert surveys["train"].coverage == 1.0 and surveys["val"].coverage == surveys["test"].coverage == 3 / 5
    known = task.document_frequencies().tree.vocabulary
    assert "caption" in known and "zebra" not in known


@pytest.mark.parametrize(
    "spelt", ["000000000007", 7.0, "7", "000000000007.jpg", "COCO_val2014_000000000007.jpg"]
)
def test_an_id_is_the_same_however_it_is_written(root: Path, spelt: object) -> None:
    known = [{"id": 7, "file_name": f"{7:012d}.jpg"}]
    write(root, "val2017", images=known, annotations=[{"image_id": spelt, "caption": "x"}])
    splits = {"root": str(root), "train": "train2017", "val": "val2017", "test": None}
    assert [e.id for e in coco(**splits).splits["val"]] == ["7"]
    known = [{"id": spelt, "file_name": f"{7:012d}.jpg"}]
    write(root, "val2017", images=known, annotations=[{"image_id": 7, "caption": "x"}])
    assert [e.references for e in coco(**splits).splits["val"]] == [("x",)]


def test_entries_that_lack_something_are_named_and_the_rest_is_read(root: Path) -> None:
    images = [{"id": 7, "file_name": f"{7:012d}.jpg"}, {"id": 8}, {"id": None, "file_name": "x"}, 3]
    captions = [{"image_id": 7, "caption": "x"}, {"image_id": 7}, {"caption": "y"}]
    write(root, "val2017", images=images, annotations=captions)
    splits = {"root": str(root), "train": "train2017", "val": "val2017", "test": None}
    with pytest.raises(ValueError, match=r"captions_val2017.json, images\[2\] has the 'id' null"):
        coco(**splits)
    dataset = coco(**splits, on_bad_image="skip")
    places = [f.file.rpartition(", ")[2] for f in dataset.issues]
    assert sorted(places) == ["annotations[1]", "annotations[2]", "images[1]", "images[2]", "images[3]"]
    assert [e.id for e in dataset.splits["val"]] == ["7"]


def test_objects_must_be_known_of_all_images_or_of_none(root: Path) -> None:
    """Scores would be refused after the training."""
    Image.new("RGB", (6, 6)).save(root / "val2017" / f"{8:012d}.jpg")
    both = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in (7, 8)]
    write(root, "val2017", images=both, annotations=[{"image_id": n, "caption": "x"} for n in (7, 8)])
    content = {"images": [{"id": 7}], "annotations": [], "categories": [{"id": 3, "name": "car"}]}
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    splits = {"root": str(root), "train": "train2017", "val": "val2017", "test": None}
    with pytest.raises(ValueError, match="no entry in the objects file"):
        coco(**splits)
    assert [e.id for e in coco(**splits, on_bad_image="skip").splits["val"]] == ["7"]
