"""`easycap caption --txt|--csv|--jsonl`: captions in files, continued by the same command."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import whole_runs
from PIL import Image

from easycap.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("files") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EASYCAP_CACHE", str(scenes_cache))
        return whole_runs.run(folder, "trainer.max_steps=2")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "b, c.png", 'sub/"d".jpg')):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def caption(run: Path, photos: Path, *options: str) -> int:
    return main(["caption", str(run), str(photos), "--device", "cpu", *options])


@pytest.fixture
def expected(run: Path, photos: Path, capsys: pytest.CaptureFixture) -> dict[str, str]:
    assert caption(run, photos, "--json") == 0
    return {row["file"]: row["caption"] for row in json.loads(capsys.readouterr().out)}


def rows(path: Path) -> dict[str, str]:
    if path.suffix == ".jsonl":
        found = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        with path.open(newline="") as file:
            found = list(csv.DictReader(file))
    assert len({row["file"] for row in found}) == len(found)
    return {row["file"]: row["caption"] for row in found}


def test_text_files_lie_beside_the_images(
    run: Path, photos: Path, expected: dict[str, str], capsys: pytest.CaptureFixture
) -> None:
    assert caption(run, photos, "--txt") == 0
    for file, text in expected.items():
        assert Path(file).with_suffix(".txt").read_text() == text + "\n"
    (photos / "a.txt").write_text("mine\n")
    (photos / "b, c.txt").unlink()
    assert caption(run, photos, "--txt", "--dry-run") == 0
    assert "3 images, 2 of them have a caption: 1 to caption" in capsys.readouterr().out
    assert not (photos / "b, c.txt").exists()
    assert caption(run, photos, "--txt", "--batch-size", "1") == 0
    assert (photos / "a.txt").read_text() == "mine\n" and (photos / "b, c.txt").exists()
    assert caption(run, photos, "--txt", "--overwrite") == 0
    assert (photos / "a.txt").read_text() == expected[str(photos / "a.jpg")] + "\n"


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_table_that_a_kill_has_cut_is_completed(
    form: str, run: Path, photos: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "new" / f"captions.{form}"
    assert caption(run, photos, f"--{form}", str(out)) == 0
    assert rows(out) == expected
    whole = out.read_bytes()
    for cut in (len(whole) - 5, len(whole) // 2, 3, 0):
        out.write_bytes(whole[:cut])
        assert caption(run, photos, f"--{form}", str(out), "--dry-run") == 0
        assert out.read_bytes() == whole[:cut]
        assert caption(run, photos, f"--{form}", str(out), "--batch-size", "2") == 0
        assert out.read_bytes() == whole
    assert caption(run, photos, f"--{form}", str(out), "--dry-run", "--overwrite") == 0
    assert out.read_bytes() == whole
    assert caption(run, photos, f"--{form}", str(out), "--overwrite") == 0
    assert out.read_bytes() == whole


def test_an_image_that_cannot_be_read_is_named_and_tried_again(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    good = (photos / "a.jpg").read_bytes()
    (photos / "a.jpg").write_bytes(good[:50])
    out = tmp_path / "captions.csv"
    assert caption(run, photos, "--csv", str(out)) == 1
    assert "a.jpg cannot be read as an image" in capsys.readouterr().err
    assert len(rows(out)) == 2
    (photos / "a.jpg").write_bytes(good)
    assert caption(run, photos, "--csv", str(out)) == 0
    assert len(rows(out)) == 3


def test_what_would_mix_captions_is_refused(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for form, text in (
        ("csv", "name,text\nx,y\n"),
        ("csv", "name,file,label\nx,y,z\n1,2,3"),
        ("csv", "one line"),
        ("csv", "file,caption\na.jpg,a dog,3\n"),
        ("jsonl", '{"a": 1}'),
        ("jsonl", '{"file": "a.jpg", "caption": "a dog", "score": 1}\n'),
        ("jsonl", "[1]\n"),
        ("jsonl", '{"file": "a.jpg"\n'),
    ):
        other = tmp_path / f"other.{form}"
        other.write_text(text)
        for options in ((), ("--dry-run",)):
            assert caption(run, photos, f"--{form}", str(other), *options) == 1
            message = capsys.readouterr().err
            assert f"other.{form} is not a file that easycap caption --{form} has written" in message
            assert other.read_text() == text
    assert caption(run, photos, "--csv", str(tmp_path)) == 1
    assert f"--csv {tmp_path} is a folder: name a file" in capsys.readouterr().err
    assert caption(run, photos, "--overwrite") == 1
    assert "--overwrite needs --txt" in capsys.readouterr().err
    assert caption(run, photos, "--txt", "--json") == 1
    assert "--json cannot be combined with --txt" in capsys.readouterr().err
    shutil.copy(photos / "a.jpg", photos / "a.jpeg")
    assert caption(run, photos, "--txt") == 1
    assert "a.jpeg and a.jpg would share a.txt" in capsys.readouterr().err
    assert not list(photos.rglob("*.txt"))


def test_a_tag_model_writes_its_tags(photos: Path, tmp_path: Path) -> None:
    tagger = whole_runs.run(tmp_path / "tagger", "task=tags", "tagger=cnn", "tag_vocab.min_count=2")
    assert caption(tagger, photos, "--csv", str(tmp_path / "tags.csv")) == 0
    known = json.loads((tagger / "checkpoints" / "best" / "tags.json").read_text())
    found = rows(tmp_path / "tags.csv")
    assert len(found) == 3 and all(text and not any(c.isdigit() for c in text) for text in found.values()), (
        known
    )
