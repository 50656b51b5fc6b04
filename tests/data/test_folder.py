"""A user's own folder: captions in a CSV, in JSONL, in texts; splits by a column or by a hash that stays put."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from easycap.data.findings import OnBadImage
from easycap.data.folder import folder
from easycap.types import Dataset

COUNT = 30


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(COUNT):
        path = tmp_path / "photos" / f"{'sub/' * (number % 2)}{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    return tmp_path / "photos"


def names(photos: Path) -> list[str]:
    return sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))


def read(photos: Path, captions: Path | None, **changes: Any) -> Dataset:
    settings = {
        "image_column": "image",
        "caption_column": "caption",
        "split_column": None,
        "val_share": 0.2,
        "test_share": 0.2,
        "seed": 0,
        "on_bad_image": OnBadImage.error,
        "pixels": True,
    }
    path = None if captions is None else str(captions)
    return folder(images=str(photos), captions=path, **(settings | changes))


def captions_of(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {e.id: e.references for examples in dataset.splits.values() for e in examples}


def write(photos: Path, name: str, text: str) -> Path:
    (photos.parent / name).write_text(text, encoding="utf-8")
    return photos.parent / name


def test_a_csv_may_have_several_rows_of_an_image(photos: Path) -> None:
    rows = [f'{n},"a dog, {i}"' for i in range(2) for n in names(photos)]
    table = write(photos, "c.csv", "\ufeffimage,caption\n" + "\n".join(rows))
    dataset = read(photos, table)
    assert captions_of(dataset) == dict.fromkeys(names(photos), ("a dog, 0", "a dog, 1"))


def test_jsonl_may_have_a_list_of_captions(photos: Path) -> None:
    rows = [json.dumps({"file": f"./{n}", "texts": ["one", "two"]}) for n in names(photos)]
    table = write(photos, "c.jsonl", "\n".join(rows) + "\n")
    dataset = read(photos, table, image_column="file", caption_column="texts")
    assert captions_of(dataset) == dict.fromkeys(names(photos), ("one", "two"))


def test_a_null_in_a_list_of_captions_is_no_caption(photos: Path) -> None:
    rows = [json.dumps({"image": n, "caption": ["one", None]}) for n in names(photos)]
    table = write(photos, "c.jsonl", "\n".join(rows))
    with pytest.raises(ValueError, match="c.jsonl has a caption that is no text: null"):
        read(photos, table)
    dataset = read(photos, table, on_bad_image=OnBadImage.skip)
    assert captions_of(dataset) == dict.fromkeys(names(photos), ("one",))
    assert len(dataset.findings) == COUNT


@pytest.mark.parametrize("beside", [True, False])
def test_texts_lie_beside_the_images_or_in_a_folder_of_their_own(photos: Path, beside: bool) -> None:
    texts = photos if beside else photos.parent / "texts"
    for name in names(photos):
        path = (texts / name).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one\n\ntwo\n")
    dataset = read(photos, None if beside else texts)
    assert captions_of(dataset) == dict.fromkeys(names(photos), ("one", "two"))


def test_a_column_names_the_split(photos: Path) -> None:
    splits = ["train", "validation", "TEST"] * (COUNT // 3)
    rows = [f"{name},x,{split}" for name, split in zip(names(photos), splits, strict=True)]
    table = write(photos, "c.csv", "image,caption,part\n" + "\n".join(rows))
    dataset = read(photos, table, split_column="part")
    assert [e.id for e in dataset.splits["val"]] == names(photos)[1::3]
    assert {split: len(examples) for split, examples in dataset.splits.items()} == dict.fromkeys(
        ("train", "val", "test"), COUNT // 3
    )


def test_the_hash_leaves_an_image_where_it_is_when_others_go(photos: Path) -> None:
    def splits(**changes: Any) -> dict[str, str]:
        rows = "\n".join(f"{name},x" for name in names(photos))
        dataset = read(photos, write(photos, "c.csv", "image,caption\n" + rows), **changes)
        return {e.id: split for split, examples in dataset.splits.items() for e in examples}

    before, other = splits(), splits(seed=1)
    assert before != other
    gone = names(photos)[::7]
    for name in gone:
        (photos / name).unlink()
    after = splits()
    assert after == {name: split for name, split in before.items() if name not in gone}


@pytest.mark.parametrize(
    ("name", "text", "changes", "message"),
    [
        ("c.csv", "file,caption\n0.png,x", {}, r"line 2 has no 'image' \(data.image_column\)"),
        ("c.csv", "image,caption\n0.png,a dog, running", {}, "line 2 has more values than columns"),
        ("c.csv", "image,caption,part\n0.png,x,trian", {"split_column": "part"}, "did you mean 'train'"),
        ("c.csv", "image,caption,part\n0.png,x,val\n0.png,y,test", {"split_column": "part"}, "in val and in test"),
        ("c.jsonl", '{"image": "0.png", "caption": "x"}\n{', {}, "line 2 is no JSON"),
        ("c.jsonl", "[1]", {}, "line 1 is no JSON object"),
        ("c.xml", "", {}, "must be a .csv, .tsv or .jsonl file"),
        ("c.csv", "image,caption\n0.png,x", {"val_share": 0.9}, "below 1 together"),
        ("c.csv", "image,caption\n0.png,x", {}, "png has no caption"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(
    photos: Path, name: str, text: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read(photos, write(photos, name, text), **changes)


def test_a_table_that_is_not_utf8_is_named(photos: Path) -> None:
    (photos.parent / "c.csv").write_bytes("image,caption\n0.png,caf\xe9".encode("latin-1"))
    with pytest.raises(ValueError, match="c.csv is not UTF-8"):
        read(photos, photos.parent / "c.csv")
