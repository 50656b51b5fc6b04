"""`easycap data check` and `show` on a folder with bad files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.bad_files import BAD, make_bad_files
from helpers.tiny_config import TINY
from PIL import Image

from easycap.commands.data import main
from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.tasks.captioning import CaptioningTask


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    table = make_bad_files(tmp_path_factory.mktemp("bad") / "photos")
    return ["data=folder", f"data.images={table.with_suffix('')}", f"data.captions={table}"]


def test_check_lists_everything_wrong(data: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "--json", *data]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {row["id"] for row in found if row["dropped"]} == BAD.keys()
    assert main(["check", *data]) == 1
    table = capsys.readouterr().out
    assert "6 dropped, 3 fixed" in table and "nothing is wrong" not in table


def test_check_of_good_data_says_so(capsys: pytest.CaptureFixture) -> None:
    scenes = ["data.size=32", "data.train_images=24", "data.val_images=6", "data.test_images=6"]
    assert main(["check", *scenes, "data.workers=1"]) == 0
    assert "nothing is wrong" in capsys.readouterr().out


def test_check_takes_only_overrides_that_exist(data: list[str]) -> None:
    with pytest.raises(ValueError, match="data.caption does not exist"):
        main(["check", *data, "data.caption=x"])


def test_show_writes_a_page_of_what_the_model_gets(data: list[str], tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    small = ["encoder.image_size=32", "data.on_bad_image=skip"]
    assert main(["show", *data, *small, "--images", "3", "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 3
    assert "a picture called" in text and "<code>" in text


def test_check_prints_names_as_they_are_and_says_why_a_split_is_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "im").mkdir()
    for name in ("a.png", "b [copy].png", "c [red].png"):
        Image.new("RGB", (4, 4)).save(tmp_path / "im" / name)
    (tmp_path / "c.csv").write_text("image,caption\na.png,x\nb [copy].png,x\n")
    data = ["data=folder", f"data.images={tmp_path / 'im'}", f"data.captions={tmp_path / 'c.csv'}"]
    assert main(["check", *data]) == 1
    text = capsys.readouterr().out
    assert "c [red].png" in text and "1 dropped, 0 fixed" in text and "without images" in text
    assert "splitting by hash needs at least 3 usable images" in text


def test_training_says_itself_why_a_split_is_empty(tmp_path: Path) -> None:
    (tmp_path / "im").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "im" / "a.png")
    (tmp_path / "im" / "a.txt").write_text("a dog")
    config = check(compose([*TINY[5:], "data=folder", f"data.images={tmp_path / 'im'}"])[0])
    with pytest.raises(
        ValueError,
        match="no images for the val split: splitting by hash needs at least 3 usable images",
    ):
        CaptioningTask.read_data(config)
