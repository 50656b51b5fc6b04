"""`easycap data guess DIR` prints the overrides that read a folder, or says why there is no one way to read it."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.small_data import write_images, write_json

from easycap.commands.data import main
from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.data import guess_tables, guess_texts, table_files
from easycap.data.guess import readings
from easycap.data.guess_tables import split_of_path
from easycap.data.known_sets import incomplete, known_sets, recognised
from easycap.data.text_files import read_text
from easycap.tasks.datasets import build_dataset


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".hf")
    monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path / ".cache"))


DOCS = Path(__file__).parents[2] / "docs" / "data.md"
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


def coco_with_other_keys(root: Path) -> None:
    write_images(root / "bilder", *NAMES)
    pictures = [{"id": 9 - n, "datei": name, "lizenz": 1} for n, name in enumerate(NAMES)]
    texts = [{"id": n, "bild_id": 9 - n, "satz": text, "wer": 5 + n % 2} for n, text in enumerate(TEXTS)]
    licences = [{"id": 1, "name": "frei"}]
    write_json(root / "alles.json", {"lizenzen": licences, "bilder": pictures, "texte": texts})


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


def sidecars_of_file_names(root: Path) -> None:
    write_images(root, *NAMES)
    for name, text in PAIRS:
        (root / f"{name}.TXT").write_text(text)


def texts_in_a_folder_of_their_own(root: Path) -> None:
    write_images(root / "photos/a", *NAMES)
    (root / "texts/a").mkdir(parents=True)
    for name, text in PAIRS:
        (root / "texts/a" / name).with_suffix(".txt").write_text(text)


def captions_below_a_key(root: Path) -> None:
    write_images(root / "pics", *NAMES)
    write_json(root / "c.json", {"version": 2, "captions": {name: [text] for name, text in PAIRS}})


def columns_that_only_begin_like_captions(root: Path) -> None:
    write_images(root / "pics", *NAMES)
    rows = [f"{name},{text},9{n},de,http://a/{n},7" for n, (name, text) in enumerate(PAIRS)]
    header = "image,caption,caption_id,caption_lang,caption_url,caption_length"
    (root / "c.csv").write_bytes("\r\n".join(["\ufeff" + header, *rows, ""]).encode())


def a_list_for_each_split(root: Path) -> None:
    write_images(root / "pics", *NAMES)
    for split, numbers in (("train", range(3)), ("val", range(3, 4)), ("test", range(4, 5))):
        (root / f"{split}_images.txt").write_text("".join(f"{NAMES[n]}\n" for n in numbers))
        (root / f"{split}.de.txt").write_text("".join(f"{TEXTS[n]}\n" for n in numbers))


def a_list_for_each_split_spelt_otherwise(root: Path) -> None:
    """And with the names of Multi30k's captions, but not of its lists."""
    write_images(root / "pics", *NAMES)
    (root / "lists").mkdir()
    for split, numbers in (("train", range(4)), ("dev", range(4, 5))):
        (root / f"lists/{split}.txt").write_bytes("".join(f"{NAMES[n]}\r\n" for n in numbers).encode())
        (root / f"{split}.1.de").write_text("".join(f"{TEXTS[n]}\n" for n in numbers))


def images_in_parquet(root: Path) -> None:
    write_images(root, *NAMES)
    contents = [(root / name).read_bytes() + bytes([n]) for n, name in enumerate(NAMES)]
    rows = [
        {"image": {"bytes": content, "path": name}, "caption": text}
        for content, (name, text) in zip(contents, PAIRS, strict=True)
    ]
    (root / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), root / "data/train-00000-of-00001.parquet")
    for name in NAMES:
        (root / name).unlink()


def saved_in_a_folder(root: Path) -> None:
    images_in_parquet(root / "packed")
    file = root / "packed/data/train-00000-of-00001.parquet"
    datasets.Dataset.from_list(pq.read_table(file).to_pylist()).save_to_disk(root / "arrow")
    shutil.rmtree(root / "packed")


@pytest.mark.parametrize(
    ("layout", "count", "captions"),
    [
        (sidecars_of_file_names, 5, 5),
        (texts_in_a_folder_of_their_own, 5, 5),
        (captions_below_a_key, 5, 5),
        (columns_that_only_begin_like_captions, 5, 5),
        (a_list_for_each_split, 5, 5),
        (a_list_for_each_split_spelt_otherwise, 5, 5),
        (images_in_parquet, 5, 5),
        (saved_in_a_folder, 5, 5),
        (coco_in_german, 5, 5),
        (coco_with_other_keys, 5, 5),
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


def settings(folder: Path) -> dict[str, str | None]:
    """What the only reading of a folder sets besides its root and the columns."""
    (found,), _ = readings(folder, lambda option: {"name": option})
    return {k: v for k, v in found.settings.items() if k not in ("root", "image_column", "caption_column")}


def rows_of(names: Iterable[str]) -> list[dict[str, str]]:
    return [{"image": name, "caption": text} for name, text in PAIRS if name in names]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_table_of_one_split_is_read_as_that(split: str, tmp_path: Path) -> None:
    write_images(tmp_path, *NAMES)
    write_json(tmp_path / f"captions_{split}.json", rows_of(NAMES))
    assert settings(tmp_path) == {split: f"captions_{split}.json"}


def test_tables_of_splits_may_name_their_columns_differently(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_images(tmp_path, *NAMES)
    write_json(tmp_path / "train.json", rows_of(NAMES[:3]))
    write_json(tmp_path / "val.json", [{"bild": name, "satz": text} for name, text in PAIRS[3:]])
    assert settings(tmp_path) == {"train": "train.json", "val": "val.json"}
    assert main(["guess", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "train: 3 images, 3 captions" in printed.err and "'caption'; or images are" in printed.err


def test_coco_with_one_split_is_read_without_the_other(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_images(tmp_path / "train2017", *NAMES)
    images = [{"id": n, "file_name": name} for n, name in enumerate(NAMES)]
    captions = [{"image_id": n, "caption": text} for n, text in enumerate(TEXTS)]
    stored = {"images": images, "annotations": captions}
    write_json(tmp_path / "annotations" / "captions_train2017.json", stored)
    assert main(["guess", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"data=coco data.root={tmp_path} data.val=null\n"
    assert "its file of val is missing" in printed.err and "val: 1 image, 1 caption\n" in printed.err


def test_a_pattern_names_no_other_files(tmp_path: Path) -> None:
    write_images(tmp_path, *NAMES)
    for number in range(2):
        write_json(tmp_path / f"part_{number:03d}.json", rows_of(NAMES[number::2]))
    assert settings(tmp_path) == {"captions": "part_*.json"}
    write_json(tmp_path / "part_of_nothing.json", {"x": 1})
    assert settings(tmp_path) == {"captions": "part_00[01].json"}
    write_json(tmp_path / "part_0000.json", {"x": 1})
    write_json(tmp_path / "part_0010.json", rows_of(NAMES[4:]))
    found, reasons = readings(tmp_path, lambda option: {"name": option})
    assert not found and any("no single pattern matches only" in r for r in reasons)


def test_a_state_of_something_else_hides_no_tables(tmp_path: Path) -> None:
    write_images(tmp_path, *NAMES)
    write_json(tmp_path / "c.json", rows_of(NAMES))
    for name in ("state.json", "dataset_dict.json"):
        write_json(tmp_path / "old" / name, {"epoch": 3})
    assert settings(tmp_path) == {"captions": "c.json"}


def test_files_are_read_once_and_tables_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_list_for_each_split(tmp_path)
    rows = "".join(f"{name},{text}\n" for name, text in PAIRS * 400)
    (tmp_path / "rows.csv").write_text(f"a,b\n1,2\n{rows}")
    write_json(tmp_path / "x.json", {"x": 1})
    whole: list[str] = []

    def read(path: Path, *, most: int | None = None) -> str:
        text = read_text(path, most=most)
        if most is None or len(text) == path.stat().st_size > most:
            whole.append(path.name)
        return text

    monkeypatch.setattr(guess_tables, "HEAD", 1000)
    for module in (guess_texts, table_files):
        monkeypatch.setattr(module, "read_text", read)
    assert settings(tmp_path).keys() == {"image_list", "train", "val", "test"}
    assert len(whole) == len(set(whole)) and "x.json" in whole and "rows.csv" not in whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            json.dumps([[*pair] for pair in PAIRS]).encode(),
            "c.json contains neither rows nor a list of objects",
        ),
        ("bild\ttext\na.jpg\tgröße\n".encode("latin-1"), "c.txt is not UTF-8 .*: save it as UTF-8"),
        (None, "no images found below .*; c.tar is an archive: unpack it first"),
    ],
)
def test_what_cannot_be_read_is_said(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    if content is not None:
        write_images(tmp_path, *NAMES)
    ending = re.search(r"c\.(\w+)", message)
    assert ending
    (tmp_path / ending[0]).write_bytes(content or b"")
    assert main(["guess", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert re.search(message, printed.err) and not printed.out


def test_the_shell_trains_on_what_was_found_and_only_then(tmp_path: Path) -> None:
    """As `easycap data` and docs/data.md say it, with a folder whose name the shell would take apart."""
    help_text = subprocess.run(
        [sys.executable, "-m", "easycap", "data", "--help"], capture_output=True, text=True, check=True
    ).stdout
    (line,) = (line.strip() for line in help_text.splitlines() if "eval " in line)
    assert f"$ {line.replace('DIR', 'mine')}" in DOCS.read_text(encoding="utf-8")
    (tmp_path / "easycap").write_text(
        f'#!/bin/sh\nif [ "$1" = train ]; then printf "%s\\n" "$@"; else exec {sys.executable} -m easycap "$@"; fi\n'
    )
    (tmp_path / "easycap").chmod(0o755)
    folder = tmp_path / "a  set of *"
    for said in ("", f"train\ndata=tables\ndata.root={folder}\ndata.sidecar=.caption\n"):
        command = line.replace("DIR", shlex.quote(str(folder)))
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        run = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True)
        assert (run.stdout, run.returncode) == (said, 0 if said else 1), run.stderr
        other_sidecars(folder)


def test_of_two_readings_both_are_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_images(tmp_path, *NAMES)
    for language in ("de", "en"):
        write_json(tmp_path / f"{language}.json", dict(zip(NAMES, TEXTS, strict=True)))
    assert main(["guess", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert not printed.out
    assert "2 ways to read" in printed.err
    assert "data.captions=de.json" in printed.err and "data.captions=en.json" in printed.err


def test_questions_of_a_dialogue_are_no_captions(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_images(tmp_path, *NAMES)
    asked = {"from": "human", "value": "Describe it.\n<image>"}
    rows = [{"image": n, "conversations": [asked, {"from": "gpt", "value": text}]} for n, text in PAIRS]
    write_json(tmp_path / "chat.json", rows)
    assert main(["guess", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert not printed.out and "'conversations[].value' is a dialogue" in printed.err
    captions = "conversations[1].value"
    assert f"set data.caption_column to {captions!r}" in printed.err
    overrides = [f"data.root={tmp_path}", "data.captions=chat.json", f"data.caption_column='{captions}'"]
    data = build_dataset(check(compose(["data=tables", *overrides])[0]))
    assert {c for examples in data.splits.values() for e in examples for c in e.references} == set(TEXTS)


def test_equal_notes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_images(tmp_path, *NAMES)
    with (tmp_path / "m.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("file", "caption"), *((n, text.replace(" ", "\n", 1)) for n, text in PAIRS)]
        )
    assert main(["guess", str(tmp_path)]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "several lines" in line]
    assert len(notes) == 1 and "m.csv has a caption of several lines: read as one (5, e.g. '00" in notes[0]


def test_captions_without_spaces_get_a_segmenter(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_images(tmp_path, *NAMES)
    write_json(tmp_path / "c.json", dict.fromkeys(NAMES, "一个穿红色衣服的男人在球场上奔跑"))
    assert main(["guess", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "scripts: Chinese 100 %; vocab.segmenter=jieba" in printed.err
    overrides = shlex.split(printed.out)
    assert overrides[-1] == "vocab.segmenter=characters"
    assert main(["check", *overrides]) == 0 and "16.0" in capsys.readouterr().out  # words per caption


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-8-sig"])
def test_a_table_is_read_by_its_byte_order_mark(encoding: str, tmp_path: Path) -> None:
    table = "".join(f"{name},{text}\n" for name, text in [("\ufefffile", "caption"), *PAIRS])
    text = table if encoding == "utf-16-be" else table.removeprefix("\ufeff")
    for name in ("c.csv", "c.csv.gz"):
        stored = text.encode(encoding)
        (tmp_path / name).write_bytes(gzip.compress(stored) if name.endswith("gz") else stored)
        assert read_text(tmp_path / name) == table.removeprefix("\ufeff")
    (tmp_path / "c.csv.gz").unlink()
    write_images(tmp_path, *NAMES)
    assert settings(tmp_path) == {"captions": "c.csv"}


def test_annotations_of_objects_are_passed_over(tmp_path: Path) -> None:
    write_images(tmp_path, *NAMES)
    images = [{"id": n, "file_name": name} for n, name in enumerate(NAMES)]
    boxes = [{"id": n, "image_id": n, "bbox": [1, 2, 3, 4], "category_id": 1} for n in range(5)]
    texts = [{"id": n, "image_id": n, "caption": text} for n, text in enumerate(TEXTS)]
    write_json(tmp_path / "instances.json", {"images": images, "annotations": boxes})
    write_json(tmp_path / "captions.json", {"images": images, "annotations": texts})
    found, reasons = readings(tmp_path, lambda _: {})
    assert len(found) == 1 and not reasons


def test_of_a_file_its_folder_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "c.csv").touch()
    with pytest.raises(
        ValueError, match=re.escape(f"is a file; give its folder: easycap data guess {tmp_path}")
    ):
        readings(tmp_path / "c.csv", lambda _: {})


def test_two_columns_of_captions_are_two_readings(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_images(tmp_path, *NAMES)
    write_json(tmp_path / "c.json", [{"file": n, "en": "a dog runs there", "de": TEXTS[0]} for n in NAMES])
    assert main(["guess", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert not printed.out and "2 ways to read" in printed.err and "not read" not in printed.err
    offered = [shlex.split(line) for line in printed.err.splitlines() if line.startswith("  data=tables")]
    assert {line[-1] for line in offered} == {"data.caption_column=en", "data.caption_column=de"}
    assert len(build_dataset(check(compose(offered[0])[0])).splits["train"]) > 0


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "has no files"),
        (["c.csv"], "no images found below"),
        (["0.jpg", "notes.md"], "1 image found, but no captions; other files: .md"),
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


def test_a_known_set_is_known_by_more_than_a_usual_name() -> None:
    assert not recognised("mine", ["train.en", "train.txt", "photos/1.jpg"])
    assert recognised("Multi30k", ["train.en", "train.txt"]) == {"multi30k_en": "train.en"}
    assert recognised("data", ["task1/raw/train.cs.gz"]) == {"multi30k_cs": "task1/raw/train.cs.gz"}
    assert recognised("mine", ["train.2.de"]) == {"multi30k_de": "train.2.de"}


def test_an_incomplete_set_is_noticed() -> None:
    found: list[str | None] = ["train"] * 28000 + ["val"] * 1014
    (note,) = incomplete("flickr30k", found)
    assert "29,014 of 31,014 images of flickr30k (28,000 of 29,000 of train, 0 of 1,000 of test)" in note
    assert not incomplete("flickr30k", [*found, *(["test"] * 2000)])
    assert not incomplete("my own", found)
