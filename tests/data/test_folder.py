"""A user's own folder: captions in a CSV, in JSONL, in texts; splits by a column or by a hash that stays put."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from easycap.data.caption_checks import LINES, SURROGATES, cleaned
from easycap.data.folder import folder
from easycap.data.issues import OnBadImage
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


def test_half_a_character_is_made_whole_and_reported(photos: Path) -> None:
    cut, halves = (
        "a dog \\ud83d",
        "a cat \\ud83d\\ude00",
    )  # as JSON writes an emoji that was cut, and a whole one
    rows = [f'{{"image": "{n}", "caption": "{cut if n == "0.png" else halves}"}}' for n in names(photos)]
    dataset = read(photos, write(photos, "c.jsonl", "\n".join(rows)))
    captions = captions_of(dataset)
    assert captions.pop("0.png") == ("a dog \N{REPLACEMENT CHARACTER}",)
    assert set(captions.values()) == {("a cat \N{GRINNING FACE}",)}
    (issue,) = dataset.issues
    assert issue.id == "0.png" and not issue.dropped
    assert (
        "has a caption with half a character (a lone surrogate): replaced by \N{REPLACEMENT CHARACTER}"
        in (issue.what)
    )
    assert cleaned("so\ud83d\ude00\n\udc00") == (
        "so\N{GRINNING FACE} \N{REPLACEMENT CHARACTER}",
        LINES | SURROGATES,
    )


def test_a_null_in_a_list_of_captions_is_no_caption(photos: Path) -> None:
    rows = [json.dumps({"image": n, "caption": ["one", None]}) for n in names(photos)]
    table = write(photos, "c.jsonl", "\n".join(rows))
    with pytest.raises(ValueError, match="c.jsonl has a caption that is not text: null"):
        read(photos, table)
    dataset = read(photos, table, on_bad_image=OnBadImage.skip)
    assert captions_of(dataset) == dict.fromkeys(names(photos), ("one",))
    assert len(dataset.issues) == COUNT


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
        ("c.csv", "file,caption\n0.png,x", {}, r"line 1 has no 'image' \(data.image_column\)"),
        ("c.csv", "image,caption\n0.png,a dog, running", {}, "line 2 has more values than columns"),
        ("c.csv", "image,caption,part\n0.png,x,trian", {"split_column": "part"}, "did you mean 'train'"),
        ("c.csv", "image,caption,part\n0.png,x,val\n0.png,y,test", {"split_column": "part"}, "in val and in test"),
        ("c.jsonl", '{"image": "0.png", "caption": "x"}\n{', {}, "line 2 is not valid JSON"),
        ("c.jsonl", "[1]", {}, "line 1 is not a JSON object"),
        ("c.xml", "", {}, "must be one of .csv, .json, .jsonl"),
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


@pytest.mark.parametrize(
    ("name", "header", "line"),
    [
        ("c.csv", "image;caption", "{};a dog, running"),
        ("c.csv", "image| number| caption", "{}| 0| a dog, running"),
        ("c.csv", "caption\timage", "a dog, running\t{}"),
        ("c.tsv", "image\tcaption", "{}\ta dog, running"),
        ("captions.txt", "image,caption", '{},"a dog, running"'),
        ("token.txt", "0.png#0\ta dog, running", "{}#1\ta dog, running"),
        ("c.ndjson", "", '{{"image": "{}", "caption": "a dog, running"}}'),
    ],
)
def test_the_usual_kinds_of_tables_are_read(photos: Path, name: str, header: str, line: str) -> None:
    table = write(photos, name, "\n".join([header, *(line.format(n) for n in names(photos))]) + "\n")
    captions = captions_of(read(photos, table))
    assert captions.pop("0.png")[-1] == "a dog, running"
    assert captions == dict.fromkeys(set(names(photos)) - {"0.png"}, ("a dog, running",))


@pytest.mark.parametrize(
    "spelling",
    [
        lambda name: name.replace("/", "\\"),
        lambda name: f"photos/{name}",
        lambda name: name.removesuffix(".png"),
        lambda name: name.upper(),
        lambda name: name.rpartition("/")[2].replace(".png", ".0"),
        lambda name: name.rpartition("/")[2].removesuffix(".png").zfill(12),
    ],
)
def test_names_that_mean_one_image_are_matched_and_it_is_reported(photos: Path, spelling: Any) -> None:
    table = write(photos, "c.csv", "image,caption\n" + "\n".join(f"{spelling(n)},x" for n in names(photos)))
    dataset = read(photos, table)
    assert captions_of(dataset) == dict.fromkeys(names(photos), ("x",))
    plain = write(photos, "plain.csv", "image,caption\n" + "\n".join(f"{n},x" for n in names(photos)))
    assert dataset.splits == read(photos, plain).splits  # split by what the folder calls them
    (issue,) = dataset.issues
    assert "has image names written differently" in issue.what and not issue.dropped


def test_letters_with_accents_are_the_same_composed_or_not(photos: Path) -> None:
    (photos / "0.png").rename(photos / unicodedata.normalize("NFD", "café.png"))
    rows = [f"{unicodedata.normalize('NFC', name)},x" for name in names(photos)]
    dataset = read(photos, write(photos, "c.csv", "image,caption\n" + "\n".join(rows)))
    assert len(captions_of(dataset)) == COUNT


def test_a_name_that_is_unknown_comes_with_what_may_be_meant(photos: Path) -> None:
    (photos / "drawing.svg").touch()
    for name, message in (
        ("sub/1.pmg", "did you mean 'sub/1.png'"),
        ("drawing.svg", "are not read as images"),
    ):
        with pytest.raises(ValueError, match=message):
            read(photos, write(photos, "c.csv", f"image,caption\n{name},x"))


def test_a_missing_image_is_not_one_of_another_splits_folder(photos: Path) -> None:
    (photos / "sub").rename(photos / "train")
    with pytest.raises(ValueError, match="val/1.png"):
        read(photos, write(photos, "c.csv", "image,caption\nval/1.png,x"))


def test_a_check_goes_on_after_lines_that_cannot_be_read(photos: Path) -> None:
    rows = [f"{name},x" for name in names(photos)[2:]]
    bad = ['0.png,"a" dog', "10.png", "0.png,a dog, running", "gone.png,x", '10.png,"never closed']
    table = write(photos, "c.csv", "\n".join(["image,caption", *bad[:4], *rows, bad[4]]))
    dataset = read(photos, table, on_bad_image=OnBadImage.skip)
    assert captions_of(dataset) == dict.fromkeys(names(photos)[2:], ("x",))
    lines = [f.file.rpartition(", ")[2] for f in dataset.issues if f.dropped and "line" in f.file]
    assert lines == ["line 2", "line 3", "line 4", f"line {len(rows) + 6}"]
    others = sorted(f.what for f in dataset.issues if "line" not in f.file)
    assert others == ["has captions of the unknown image 'gone.png'", "has no caption", "has no caption"]
    jsonl = ['{"image": "0.png", "caption": "x"}', "{", "[1]", '{"image": "0.png"}']
    dataset = read(photos, write(photos, "c.jsonl", "\n".join(jsonl)), on_bad_image=OnBadImage.skip)
    assert [f.file[-6:] for f in dataset.issues if "line" in f.file] == ["line 2", "line 3", "line 4"]


@pytest.mark.parametrize("caption", ["🙂", ".", "..."])
def test_an_image_whose_captions_have_no_word_cannot_be_scored(photos: Path, caption: str) -> None:
    """Scores would be refused after the training."""
    rows = [f'{name},"{caption if name == "0.png" else "x"}"' for name in names(photos)]
    table = write(photos, "c.csv", "image,caption\n" + "\n".join(rows))
    with pytest.raises(ValueError, match=r"0\.png has no caption that contains a word"):
        read(photos, table)
    dataset = read(photos, table, on_bad_image=OnBadImage.skip)
    assert "0.png" not in captions_of(dataset) and len(captions_of(dataset)) == COUNT - 1
    table = write(photos, "c.csv", "image,caption\n0.png,x\n" + "\n".join(rows))
    assert read(photos, table).splits  # one with a word is enough


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("count", [3, 4, 5, 10, COUNT])
def test_a_split_by_hash_leaves_none_empty(photos: Path, count: int, seed: int) -> None:
    kept = names(photos)[:count]
    for name in names(photos)[count:]:
        (photos / name).unlink()
    table = write(photos, "c.csv", "image,caption\n" + "\n".join(f"{name},x" for name in kept))
    dataset = read(photos, table, seed=seed, val_share=0.1, test_share=0.1)
    assert all(dataset.splits.values()) and not dataset.issues
    assert dataset == read(photos, table, seed=seed, val_share=0.1, test_share=0.1)


def test_damaged_images_of_few_do_not_make_up_a_split(photos: Path) -> None:
    for number, name in enumerate(names(photos)):
        if number >= 3:
            (photos / name).write_bytes(b"no image")
    table = write(photos, "c.csv", "image,caption\n" + "\n".join(f"{name},x" for name in names(photos)))
    assert all(read(photos, table, on_bad_image=OnBadImage.skip).splits.values())


def test_an_empty_split_is_told_with_its_reason(photos: Path) -> None:
    two = [f"{name},x,train" for name in names(photos)]
    table = write(photos, "c.csv", "image,caption,part\n" + "\n".join(two))
    dataset = read(photos, table, split_column="part", on_bad_image=OnBadImage.skip)
    assert [(f.split, f.what) for f in dataset.issues] == [
        (split, f"has no images for the {split} split: no row has this split in data.split_column=part")
        for split in ("val", "test")
    ]
    table = write(photos, "c.csv", f"image,caption,part\n0.png,.,val\n{chr(10).join(two[1:])}")
    dataset = read(photos, table, split_column="part", on_bad_image=OnBadImage.skip)
    assert "all of its images were skipped, e.g." in dataset.issues[-2].what
    for name in names(photos)[2:]:
        (photos / name).unlink()
    table = write(photos, "c.csv", "image,caption\n" + "\n".join(f"{name},x" for name in names(photos)))
    assert "needs at least 3 usable images" in read(photos, table).issues[0].what


def test_a_column_of_splits_that_is_not_read_is_noted(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [f"{name},a dog runs,train" for name in names(photos)]
    table = write(photos, "c.csv", "image,caption,split\n" + "\n".join(rows))
    with caplog.at_level("INFO"):
        dataset = read(photos, table, image_column=None)
    assert all(dataset.splits.values()) and "the split from" not in caplog.text
    (note,) = dataset.notes
    assert note.startswith("images are split by a hash") and note.endswith("data.split_column=split takes")
    assert not read(
        photos, table, image_column=None, split_column="split", on_bad_image=OnBadImage.skip
    ).notes
