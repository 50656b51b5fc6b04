"""`easycap data guess DIR` prints the overrides that read a folder, or says why there is no one way to read it."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.small_data import write_images, write_json

from easycap.commands.data import main
from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.data.guess import split_of_path
from easycap.data.known_sets import incomplete, known_sets
from easycap.tasks.datasets import build_dataset

TEXTS = [
    "ein Hund läuft",
    "zwei Männer fahren Rad",
    "ein roter Bus",
    "eine Katze schläft",
    "Kinder spielen Ball",
]
NAMES = [f"{n:03d}.jpg" for n in range(5)]
PAIRS = list(zip(NAMES, TEXTS, strict=True))


def coco_in_german(root: Path) -> None:
    """COCO's format under names of its own; ids begin anew in each split."""
    for split, numbers in (("train", range(3)), ("val", range(3, 5))):
        write_images(root / f"Bilder/{split}", *[NAMES[n] for n in numbers])
        pictures = [{"id": i, "file_name": NAMES[n], "licence": "x"} for i, n in enumerate(numbers)]
        texts = [{"id": 7 + i, "image_id": i, "text_de": TEXTS[n]} for i, n in enumerate(numbers)]
        write_json(root / f"untertitel_{split}.json", {"images": pictures, "annotations": texts})


def unusual_json(root: Path) -> None:
    write_images(root / "pics", *NAMES)
    rows = [
        {"meta": {"bild": name}, "saetze": [{"roh": text, "nr": 1}]}
        for name, text in zip(NAMES, TEXTS, strict=True)
    ]
    write_json(root / "alles.json", {"version": "1", "eintraege": rows})


def unusual_jsonl(root: Path) -> None:
    write_images(root / "pics", *NAMES)
    rows = [
        {"pic": f"pics/{name}", "url": "http://a/b.jpg", "satz": text}
        for name, text in zip(NAMES, TEXTS, strict=True)
    ]
    (root / "daten.jsonl").write_text("\n".join(map(json.dumps, rows)))


def other_sidecars(root: Path) -> None:
    write_images(root, *NAMES)
    for name, text in PAIRS:
        (root / name).with_suffix(".caption").write_text(text)


def json_sidecars(root: Path) -> None:
    write_images(root, *NAMES)
    for name, text in PAIRS:
        write_json((root / name).with_suffix(".json"), {"caption": text, "width": 3})


def metadata_csv(root: Path) -> None:
    for split in ("train", "test"):
        write_images(root / split, *NAMES)
        with open(root / split / "metadata.csv", "w", newline="") as file:
            csv.writer(file).writerows([["file_name", "text"], *PAIRS])


def metadata_parquet(root: Path) -> None:
    write_images(root / "images", *NAMES)
    rows = [
        {"file_name": f"images/{name}", "captions": [text]} for name, text in zip(NAMES, TEXTS, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), root / "metadata.parquet")


def lines(root: Path) -> None:
    write_images(root / "images", *NAMES)
    (root / "liste.txt").write_text("\n".join(NAMES) + "\n")
    (root / "saetze.txt").write_text("\n".join(TEXTS) + "\n")


def several_columns(root: Path) -> None:
    write_images(root / "images", *NAMES)
    rows = [f"{name};{text};{text};7" for name, text in PAIRS]
    (root / "tabelle.csv").write_text("bild;caption_1;caption_2;caption_id\n" + "\n".join(rows))


@pytest.mark.parametrize(
    ("layout", "count", "captions"),
    [
        (coco_in_german, 5, 5),
        (unusual_json, 5, 5),
        (unusual_jsonl, 5, 5),
        (other_sidecars, 5, 5),
        (json_sidecars, 5, 5),
        (metadata_csv, 10, 10),
        (metadata_parquet, 5, 5),
        (lines, 5, 5),
        (several_columns, 5, 10),
    ],
)
def test_any_set_of_the_usual_kinds_is_read(
    layout: Callable[[Path], None], count: int, captions: int, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root = tmp_path / "a set"
    layout(root)
    assert main(["guess", str(root)]) == 0, capsys.readouterr().err
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    dataset = build_dataset(check(compose(shlex.split(printed.out))[0]))
    examples = {e.id: e for of in dataset.splits.values() for e in of}
    assert len(examples) == count and not dataset.issues
    assert sum(len(e.references) for e in examples.values()) == captions
    assert {text for e in examples.values() for text in e.references} == set(TEXTS)
    assert "images, " in printed.err


def test_of_two_readings_both_are_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_images(tmp_path, *NAMES)
    for language in ("de", "en"):
        write_json(tmp_path / f"{language}.json", dict(zip(NAMES, TEXTS, strict=True)))
    assert main(["guess", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert not printed.out
    assert "2 ways to read" in printed.err
    assert "data.captions=de.json" in printed.err and "data.captions=en.json" in printed.err


def test_two_columns_of_captions_are_two_readings(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_images(tmp_path, *NAMES)
    write_json(tmp_path / "c.json", [{"file": n, "en": "a dog runs there", "de": TEXTS[0]} for n in NAMES])
    assert main(["guess", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert not printed.out and "'en' and 'de' could each be the captions" in printed.err


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "has no files"),
        (["c.csv"], "there are no images below"),
        (["0.jpg", "notes.md"], "there are 1 images, but no captions; besides them there is .md"),
    ],
)
def test_what_is_missing_is_said(
    files: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in files:
        (tmp_path / name).touch()
    try:
        assert main(["guess", str(tmp_path)]) == 1
    except ValueError as error:
        assert message in str(error)
    else:
        printed = capsys.readouterr()
        assert message in printed.err and not printed.out


def test_a_split_is_a_word_of_the_path() -> None:
    assert split_of_path("annotations/captions_train2017.json") == "train"
    assert split_of_path("validation/metadata.csv") == "val"
    assert split_of_path("trainer/latest.json") is None


def test_list_shows_every_known_set(capsys: pytest.CaptureFixture) -> None:
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows.keys() == known_sets().keys() and rows["nocaps"]["reader"] == "tables"
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name, row in rows.items():
        assert f"data={name}  (" in text
        assert row["get"] and row["licence"] and (row["cite"] or not row["images"])
    assert "data=roco  (en; reader: tables)\n    images: differs between copies\n" in text
    assert "data=img2dataset  (any language; reader: tables)\n    images: any number\n" in text


def test_an_incomplete_set_is_noticed() -> None:
    found: list[str | None] = ["train"] * 28000 + ["val"] * 1014
    (note,) = incomplete("flickr30k", found)
    assert "29,014 of 31,014 images of flickr30k (28,000 of 29,000 of train, 0 of 1,000 of test)" in note
    assert not incomplete("flickr30k", [*found, *(["test"] * 2000)])
    assert not incomplete("my own", found)
