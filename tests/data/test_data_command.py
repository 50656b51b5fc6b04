"""`easycap data check` and `show` on a folder with bad files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bad_files import BAD, make_bad_files

from easycap.data_command import main


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    table = make_bad_files(tmp_path_factory.mktemp("bad") / "photos")
    return ["data=folder", f"data.images={table.with_suffix('')}", f"data.captions={table}"]


def test_check_lists_everything_wrong(data: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "--json", *data]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {row["id"] for row in found if row["left_out"]} == BAD.keys()
    assert main(["check", *data]) == 1
    table = capsys.readouterr().out
    assert "6 left out, 3 repaired" in table and "nothing is wrong" not in table


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
