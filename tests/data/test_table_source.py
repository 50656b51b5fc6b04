"""Tables below a folder are read however a data set hands them out; known sets are options of one reader."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.small_data import read_set as read
from helpers.small_data import write_images, write_json

from easycap.config.compose import compose
from easycap.config.instantiate import build
from easycap.config.schema import check, option_from_text
from easycap.data.issues import DataIssues, OnBadImage
from easycap.data.table_batches import entries_of
from easycap.data.table_files import table_batches
from easycap.errors import UserError
from easycap.tasks.datasets import read_data
from easycap.types import Dataset

TEXTS = ["a dog runs", "two men ride bikes", "a red bus", "a cat sleeps", "children play", "a boat on a lake"]


def counts(dataset: Dataset) -> dict[str, tuple[int, int]]:
    return {
        split: (len(examples), sum(len(e.references) for e in examples))
        for split, examples in dataset.splits.items()
    }


def coco(names: list[str], *, first: int = 0, **fields: Callable[[int], Any]) -> dict[str, Any]:
    """COCO's format, one caption an image; `fields` are those of images."""
    numbers = range(first, first + len(names))
    return {
        "images": [
            {"id": n, "file_name": name} | {field: of(n) for field, of in fields.items()}
            for n, name in zip(numbers, names, strict=True)
        ],
        "annotations": [{"id": 99 - n, "image_id": n, "caption": TEXTS[n % 6]} for n in numbers],
    }


def test_images_of_the_same_name_in_two_folders_are_two(tmp_path: Path) -> None:
    for folder in ("train", "validation", "test"):
        write_images(tmp_path / folder, "0.png", "1.png")
        rows = [{"file_name": f"{n}.png", "text": f"{TEXTS[n]} {folder}"} for n in range(2)]
        (tmp_path / folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = read(tmp_path, "imagefolder")
    assert counts(dataset) == dict.fromkeys(("train", "val", "test"), (2, 2)) and not dataset.issues
    (example, _) = dataset.splits["val"]
    assert example.id == "validation/0.png" and example.references == ("a dog runs validation",)
    assert example.image.path == tmp_path / "validation" / "0.png"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["2.png", "val/2.png", "2"])
def test_a_missing_image_is_not_one_of_another_split(tmp_path: Path, name: str) -> None:
    """Of val/2.png, which is missing, and train/2.png."""
    write_images(tmp_path / "train", "0.png", "2.png")
    write_images(tmp_path / "val", "1.png")
    (tmp_path / "train.csv").write_text("image,caption\n0.png,a dog\n2.png,a cat\n")
    (tmp_path / "val.csv").write_text(f"image,caption\n1.png,a bus\n{name},a boat\n")
    tables = ("train=train.csv", "val=val.csv", "image_column=image")
    with pytest.raises(UserError, match=f"3 of the 4 images .*names '{name}', which is missing"):
        read(tmp_path, "tables", *tables)
    dataset = read(tmp_path, "tables", *tables, "on_bad_image=skip")
    assert [Path(e.image.path).parent.name for e in dataset.splits["val"]] == ["val"]  # type: ignore[attr-defined]


def test_a_split_may_take_images_from_a_folder_that_it_names(tmp_path: Path) -> None:
    write_images(tmp_path / "train", "0.png", "1.png", "2.png")
    (tmp_path / "train.csv").write_text("image,caption\ntrain/0.png,a dog\n")
    (tmp_path / "val.csv").write_text("image,caption\nphotos/train/1.png,a bus\ntrain/2,a cat\n")
    dataset = read(tmp_path, "tables", "train=train.csv", "val=val.csv", "image_column=image")
    assert counts(dataset)["val"] == (2, 2) and not dataset.issues


@pytest.mark.parametrize(
    "folders", [("train2017", "val2017"), ("photos/train", "photos/val"), ("train_images", "val_images")]
)
def test_images_of_splits_are_told_apart_in_any_folders(tmp_path: Path, folders: tuple[str, str]) -> None:
    """By name, where both have an image of that name, and where one lacks it."""
    write_images(tmp_path / folders[0], "0.png", "1.png", "2.png")
    write_images(tmp_path / folders[1], "0.png", "1.PNG")
    (tmp_path / "train.csv").write_text("image,caption\n0.png,a dog\n1.png,a cat\n2.png,a bus\n")
    (tmp_path / "val.csv").write_text("image,caption\n0,a house\n1.png,a tree\n2.png,a boat\n")
    tables = ("train=train.csv", "val=val.csv", "image_column=image")
    with pytest.raises(UserError, match="5 of the 6 images .*names '2.png', which is missing"):
        read(tmp_path, "tables", *tables)
    dataset = read(tmp_path, "tables", *tables, "on_bad_image=skip")
    for split, folder in zip(("train", "val"), folders, strict=True):
        paths = [e.image.path for e in dataset.splits[split]]  # type: ignore[attr-defined]
        assert len(paths) == 3 - (split == "val") and {path.parent for path in paths} == {tmp_path / folder}
        assert [tmp_path / e.id for e in dataset.splits[split]] == paths  # as names are not enough


def test_an_image_in_two_splits_is_told_also_where_names_begin_anew(tmp_path: Path) -> None:
    write_images(tmp_path, "train/0.png", "val/0.png", "1.png")
    (tmp_path / "train.csv").write_text("image,caption\n0.png,a dog\n1.png,a cat\n")
    (tmp_path / "val.csv").write_text("image,caption\n0.png,a house\n1.png,a tree\n")
    with pytest.raises(UserError, match="1.png is already in the train split"):
        read(tmp_path, "tables", "train=train.csv", "val=val.csv", "image_column=image")


def test_a_split_without_a_folder_of_its_own_takes_images_of_others(tmp_path: Path) -> None:
    """As TextCaps keeps the images of val in train_images, and COCO's numbers mean one image in any of its folders."""
    write_images(tmp_path / "train_images", "0.png", "1.png")
    write_images(tmp_path / "val2017", "000000000007.jpg")
    (tmp_path / "val.csv").write_text("image,caption\n1.png,a tree\n")
    (tmp_path / "test.csv").write_text("image,caption\n1,a cat\nCOCO_train2014_000000000007.jpg,a dog\n")
    (tmp_path / "train.csv").write_text("image,caption\n0.png,a tree\n")
    tables = ("train=train.csv", "test=test.csv", "image_column=image")
    assert counts(read(tmp_path, "tables", *tables))["test"] == (2, 2)
    with pytest.raises(UserError, match="names '1.png', which is missing"):
        read(tmp_path, "tables", "train=train.csv", "val=val.csv", "image_column=image")


def test_nocaps_has_domains_and_no_training_images(tmp_path: Path) -> None:
    names = [f"{n:04x}.jpg" for n in range(6)]
    write_images(tmp_path / "val", *names)
    domains = ["in-domain", "near-domain", "out-domain"]
    stored = coco(names, domain=lambda n: domains[n % 3], width=lambda n: n)
    write_json(tmp_path / "nocaps_val_4500_captions.json", stored)
    dataset = read(tmp_path, "nocaps")
    assert counts(dataset) == {"train": (0, 0), "val": (6, 6), "test": (6, 6)} and not dataset.issues
    assert dataset.name == "nocaps" and dataset.splits["test"] is dataset.splits["val"]
    assert [e.fields for e in dataset.splits["val"]] == [{"domain": domains[n % 3]} for n in range(6)]
    assert [e.id for e in dataset.splits["val"]] == list("012345")
    assert any("6 of 4,500 images of nocaps" in note for note in dataset.notes)
    config = check(compose(["data=nocaps", f"data.root={tmp_path}"])[0])
    with pytest.raises(ValueError, match="data=nocaps has no training images: train on another"):
        read_data(config, with_tags=False, stored=False)


def test_rejected_captions_are_left_out_and_images_that_have_no_other(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("val", 3)):
        names = [f"VizWiz_{split}_{n:08d}.jpg" for n in range(3)]
        write_images(tmp_path / split, *names)
        stored = coco(names, first=first, text_detected=lambda n: n % 2 == 0)
        for annotation in stored["annotations"]:
            annotation["is_rejected"] = annotation["image_id"] == 2
        stored["annotations"].append(
            {"id": 7, "image_id": first, "caption": "bad quality", "is_rejected": True}
        )
        write_json(tmp_path / "annotations" / f"{split}.json", stored)
    dataset = read(tmp_path, "vizwiz")
    assert counts(dataset) == {"train": (2, 2), "val": (3, 3), "test": (3, 3)} and not dataset.issues
    assert [e.fields["text_detected"] for e in dataset.splits["train"]] == ["true", "false"]
    assert "3 captions left out, as 'is_rejected' marks them, and with them 1 image" in dataset.notes


def test_a_view_is_chosen_by_its_index(tmp_path: Path) -> None:
    rows = [
        {"id": f"CXR{n}", "report": TEXTS[n], "image_path": [f"CXR{n}/0.png", f"CXR{n}/1.png"]}
        for n in range(3)
    ]
    write_images(tmp_path / "images", *(path for row in rows for path in row["image_path"]))
    write_json(tmp_path / "annotation.json", {"train": rows[:1], "val": rows[1:2], "test": rows[2:]})
    for view in (0, 1):
        dataset = read(tmp_path, "iu_xray", f"data.image_column=image_path[{view}]")
        assert [e.image.path.name for e in dataset.splits["val"]] == [f"{view}.png"]  # type: ignore[attr-defined]
        assert [e.id for e in dataset.splits["val"]] == ["CXR1"]


def test_lines_of_captions_follow_a_list_of_images(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", *(f"{n}.jpg" for n in range(6)))
    (tmp_path / "train_images.txt").write_text("".join(f"{n}.jpg\n" for n in range(6)))
    for number in (1, 2):
        (tmp_path / f"train.{number}.de").write_text("".join(f"Bild {n} von {number}\n" for n in range(6)))
    none = ("data.val=null", "data.test=null")
    dataset = read(tmp_path, "multi30k_de", *none)
    assert sum(images for images, _ in counts(dataset).values()) == 6
    by_id = {e.id: e.references for examples in dataset.splits.values() for e in examples}
    assert by_id["3.jpg"] == ("Bild 3 von 1", "Bild 3 von 2")
    with (tmp_path / "train.2.de").open("a") as file:
        file.write("one more\n")
    with pytest.raises(ValueError, match=r"train.2.de has 7 lines and .*train_images.txt names 6 images"):
        read(tmp_path, "multi30k_de", *none)


@pytest.mark.parametrize("suffix", [".txt", ".caption", ".json"])
def test_captions_stand_beside_images(tmp_path: Path, suffix: str) -> None:
    for number, text in enumerate(TEXTS):
        write_images(tmp_path, f"00000/{number:09d}.jpg")
        path = (tmp_path / f"00000/{number:09d}").with_suffix(suffix)
        if suffix == ".json":
            write_json(path, {"caption": text, "url": "http://x/y.jpg", "status": "success"})
        else:
            path.write_text(text)
    write_json(tmp_path / "00000_stats.json", {"count": 6})
    dataset = read(tmp_path, "tables", f"data.sidecar={suffix}")
    assert sum(images for images, _ in counts(dataset).values()) == 6 and not dataset.issues
    assert {e.references[0] for examples in dataset.splits.values() for e in examples} == set(TEXTS)


@pytest.mark.parametrize("suffix", [".txt", ".json"])
def test_a_text_beside_an_image_that_cannot_be_read_is_reported_once(tmp_path: Path, suffix: str) -> None:
    for number, text in enumerate(TEXTS):
        write_images(tmp_path, f"{number}.jpg")
        write_json(tmp_path / f"{number}{suffix}", {"caption": text})
    (tmp_path / f"2{suffix}").write_bytes(b'{"caption": "caf\xe9"}')
    with pytest.raises(UserError, match=f"2{suffix} is not UTF-8"):
        read(tmp_path, "tables", f"sidecar={suffix}")
    dataset = read(tmp_path, "tables", f"sidecar={suffix}", "on_bad_image=skip")
    assert [(issue.file, issue.what[:12]) for issue in dataset.issues] == [
        (str(tmp_path / f"2{suffix}"), "is not UTF-8")
    ]


def test_folders_of_images_may_name_their_splits(tmp_path: Path) -> None:
    names = ["train/0.png", "train/1.png", "valid/2.png", "test/3.png"]
    write_images(tmp_path, *names)
    rows = [f"{name},{text}\n" for name, text in zip(names, TEXTS, strict=False)]
    (tmp_path / "metadata.csv").write_text("file_name,text\n" + "".join(rows))
    assert counts(read(tmp_path, "tables", "data.captions=metadata.csv")) == {
        **{"train": (2, 2), "val": (1, 1), "test": (1, 1)}
    }


def test_missing_files_are_counted_before_training(tmp_path: Path) -> None:
    write_images(tmp_path, *(f"{n}.jpg" for n in range(4)))
    rows = [{"image": f"{n}.jpg", "caption": TEXTS[n % 6]} for n in range(9)]
    write_json(tmp_path / "captions.json", rows)
    message = r"has 4 of the 9 images of tables: .*captions.json\[4\] names '4.jpg', which is missing"
    with pytest.raises(ValueError, match=message):
        read(tmp_path, "tables", "data.captions=captions.json")
    dataset = read(tmp_path, "tables", "data.captions=captions.json", "data.on_bad_image=skip")
    assert sum(images for images, _ in counts(dataset).values()) == 4
    assert sum(issue.what == "does not exist" for issue in dataset.issues) == 5


def test_a_folder_may_be_kept_without_images_for_features(tmp_path: Path) -> None:
    """Ids do not depend on whether the images are there."""
    rows = [{"image": f"{n}", "caption": TEXTS[n]} for n in range(6)]
    write_json(tmp_path / "captions.json", rows)
    config = option_from_text("data", f"tables,root={tmp_path},captions=captions.json")
    without = build("data", config, pixels=False, with_tags=False)
    write_images(tmp_path, *(f"photos/{n}.jpg" for n in range(6)))
    found = build("data", config, pixels=True, with_tags=False)
    ids = [[e.id for e in dataset.splits["train"]] for dataset in (without, found)]
    assert ids[0] == ids[1] and ids[0]


def test_columns_of_an_image_become_its_fields(tmp_path: Path) -> None:
    write_images(tmp_path, *(f"{n}.jpg" for n in range(6)))
    rows = [
        {
            "file": f"{n}.jpg",
            "text": f"{TEXTS[n]} {k}",
            "place": "sea" if n else "land",
            "worker": k,
            "meta": {"x": n},
        }
        for n in range(6)
        for k in range(2)
    ]
    write_json(tmp_path / "c.json", rows)
    dataset = read(tmp_path, "tables", "data.captions=c.json")
    fields = {e.id: e.fields for examples in dataset.splits.values() for e in examples}
    assert fields["3.jpg"] == {"place": "sea", "meta.x": "3"}  # workers differ among an image's captions
    dataset = read(tmp_path, "tables", "data.captions=c.json", "data.fields=[place]")
    assert {n for examples in dataset.splits.values() for e in examples for n in e.fields} == {"place"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "data=tables needs data.captions, or data.train"),
        (["data.captions=none.csv"], r"has no file none.csv \(data.captions=none.csv\)"),
        (["data.captions=c.csv", "data.image_column=x"], r"c.csv, line 2 has no 'x' \(data.image_column\)"),
        (
            ["data.captions=c.csv", "data.caption_column=x"],
            r"c.csv, line 2 has no 'x' \(data.caption_column\)",
        ),
        (["data.captions=c.csv", "data.split_column=part"], "c.csv, line 3 has the unknown split 'trial'"),
        (["data.captions=c.csv", "data.id_column=nr"], r"c.csv, line 2 has no 'nr' \(data.id_column\)"),
        (["data.captions=c.csv", "data.fields=[prat]"], "data.fields has 'prat', .* did you mean 'part'"),
        (["data.captions=c.csv", "data.images=none"], r"none is not a folder \(data.images=none\)"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, overrides: list[str], message: str) -> None:
    write_images(tmp_path, "0.jpg", "1.jpg")
    (tmp_path / "c.csv").write_text("file,text,part\n0.jpg,a dog runs,train\n1.jpg,a cat sleeps,trial\n")
    with pytest.raises(ValueError, match=message):
        read(tmp_path, "tables", *overrides)


def test_captions_of_an_image_are_collected_from_all_its_rows(tmp_path: Path) -> None:
    write_images(tmp_path, "0.jpg", "1.jpg", "2.jpg")
    rows = [("0", "a dog\u0301"), ("1", ""), ("0", "two\nlines"), ("2", "."), ("0", "a dog"), ("1", "a cat")]
    write_json(
        tmp_path / "c.json", [{"image": f"{name}.jpg", "text": text, "split": "val"} for name, text in rows]
    )
    with pytest.raises(UserError, match=r"2.jpg has no caption that contains a word: '\.'"):
        read(tmp_path, "tables", "captions=c.json")
    dataset = read(tmp_path, "tables", "captions=c.json", "on_bad_image=skip")
    assert [(e.id, e.references) for e in dataset.splits["val"]] == [
        ("0.jpg", ("a do\u01f5", "two lines", "a dog")),
        ("1.jpg", ("a cat",)),
    ]
    assert [(i.id, i.what[:26]) for i in dataset.issues if i.id] == [
        ("0.jpg", "has a caption of several l"),
        ("1.jpg", "has an empty caption: drop"),
        ("2.jpg", "has no caption that contai"),
    ]


def test_of_two_images_with_one_id_the_first_has_the_captions_of_both(tmp_path: Path) -> None:
    write_images(tmp_path, *(f"{n}.jpg" for n in range(3)))
    lines = ["image,id,caption,split", "0.jpg,7,a dog,val", "1.jpg,8,a cat,val", "2.jpg,7,a bus,val"]
    (tmp_path / "c.csv").write_text("\n".join(lines))
    columns = ("captions=c.csv", "id_column=id")
    with pytest.raises(UserError, match=r"2.jpg has the id of 0.jpg"):
        read(tmp_path, "tables", *columns)
    dataset = read(tmp_path, "tables", *columns, "on_bad_image=skip")
    assert [(e.id, e.references) for e in dataset.splits["val"]] == [
        ("7", ("a dog", "a bus")),
        ("8", ("a cat",)),
    ]


def test_a_caption_that_is_no_text_is_named_and_left_out(tmp_path: Path) -> None:
    write_images(tmp_path, "0.jpg", "1.jpg")
    rows = [{"image": "0.jpg", "caption": ["a dog", 7]}, {"image": "1.jpg", "caption": "a cat"}]
    write_json(tmp_path / "c.json", {"val": rows})
    columns = ("captions=c.json", "image_column=image", "caption_column=caption")
    with pytest.raises(UserError, match=r"c.json has a caption that is not text: 7 \(image '0.jpg' of val\)"):
        read(tmp_path, "tables", *columns)
    dataset = read(tmp_path, "tables", *columns, "on_bad_image=skip")
    assert [e.references for e in dataset.splits["val"]] == [("a dog",), ("a cat",)]


def test_columns_of_json_beside_images_are_guessed_from_several(tmp_path: Path) -> None:
    """The first has no text, which the others have."""
    for number, text in enumerate(TEXTS):
        write_images(tmp_path, f"{number}.jpg")
        write_json(tmp_path / f"{number}.json", {"title": "thing", "text": text if number else None})
    dataset = read(tmp_path, "tables", "sidecar=.json", "on_bad_image=skip")
    assert {e.references[0] for examples in dataset.splits.values() for e in examples} == set(TEXTS[1:])


def test_columns_with_many_values_are_no_fields_and_read_no_more(tmp_path: Path) -> None:
    """Numbered captions have as many values, and are read to the end."""
    count = 150
    rows = {"image": [f"{n}" for n in range(3 * count)], "url": [f"http://{n}" for n in range(3 * count)]}
    rows |= {f"caption_{k}": [f"thing {n} of {k}" for n in range(3 * count)] for k in range(2)}
    pq.write_table(pa.table(rows | {"kind": ["x"] * 3 * count}), tmp_path / "c.parquet", row_group_size=count)
    config = option_from_text("data", f"tables,root={tmp_path},captions=c.parquet")
    dataset = build("data", config, pixels=False, with_tags=False)
    every = {e.id: e for examples in dataset.splits.values() for e in examples}
    assert len(every) == 3 * count and {tuple(e.fields.items()) for e in every.values()} == {(("kind", "x"),)}
    assert all(e.references == (f"thing {n} of 0", f"thing {n} of 1") for n, e in every.items())
    unused: set[str] = set()
    entries = entries_of(table_batches(tmp_path / "c.parquet", DataIssues(OnBadImage.error), unused=unused))
    assert "url" in next(entries).values
    unused.add("url")
    assert "url" not in list(entries)[-1].values


def test_the_fingerprint_is_that_of_ids_captions_and_splits(tmp_path: Path) -> None:
    write_images(tmp_path, *(f"{n}.jpg" for n in range(12)))
    rows = [{"image": f"{n}.jpg", "caption": TEXTS[n % 6]} for n in range(12)]
    write_json(tmp_path / "c.json", rows)
    first = read(tmp_path, "tables", "captions=c.json").fingerprint
    assert first and read(tmp_path, "tables", "captions=c.json").fingerprint == first
    assert read(tmp_path, "tables", "captions=c.json", "seed=1").fingerprint != first
    rows[5]["caption"] = "a red bus."
    write_json(tmp_path / "c.json", rows)
    assert read(tmp_path, "tables", "captions=c.json").fingerprint != first


@pytest.mark.parametrize(
    "odd",
    [
        *(
            "plain",
            " blanks ",
            "two\u2028lines",
            "cafe\u0301",
            "\U0001f642",
            '["a dog", "a cat"]',
            "[a] dog",
            "ein Hund",
        ),
        *("一只狗", "", "restval", "unknown split", "no image", "no id", r".\folder\7.png"),
    ],
)
@pytest.mark.parametrize("settings", [[], ["split_column=part", "id_column=key", "restval=false"]])
def test_rows_of_a_batch_are_read_as_they_are_one_by_one(
    tmp_path: Path, odd: str, settings: list[str]
) -> None:
    """CSV is read in batches of columns, JSON one by one."""
    words = ("restval", "unknown split", "no image", "no id")
    rows = [
        {"image": f"{n}.png", "caption": f"{TEXTS[n % 6]} {n}", "part": ("train", "val", "TEST")[n % 3]}
        | {"key": f"k{n}", "kind": "ab"[n % 2], "url": f"http://x/{n}"}
        for n in range(300)
    ]
    changed = {
        "restval": {"part": odd},
        "unknown split": {"part": "x"},
        "no image": {"image": ""},
        "no id": {"key": ""},
    }
    of_other = {"image": odd} if odd.endswith("png") else {"caption": odd}
    rows[7] |= changed[odd] if odd in words else of_other
    with (tmp_path / "c.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    write_json(tmp_path / "c.json", rows)
    found = []
    for name in ("c.csv", "c.json"):
        overrides = [f"captions={name}", "image_column=image", "caption_column=caption", "on_bad_image=skip"]
        config = option_from_text("data", ",".join(["tables", f"root={tmp_path}", *overrides, *settings]))
        dataset = build("data", config, pixels=False, with_tags=False)
        issues = sorted((issue.id, issue.what, issue.dropped) for issue in dataset.issues)
        found.append((dict(dataset.splits), issues))
    assert found[0] == found[1]
