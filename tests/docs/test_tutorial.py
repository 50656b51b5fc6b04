"""docs/tutorial.md and then docs/extending.md, run from top to bottom: each snippet and command, with its output."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from markdown_blocks import Block, agrees, read_blocks
from named_in_pages import scene
from run_blocks import Page, insert_line, run_here, run_in, write_file

ROOT = Path(__file__).parents[2]
BLOCKS = read_blocks(ROOT / "docs" / "tutorial.md")
EXTENDING = read_blocks(ROOT / "docs" / "extending.md")
FIRST_FILE = next(number for number, block in enumerate(BLOCKS) if block.option("file") is not None)
COPIED = ("easycap", "conf", "tests")


def test_every_snippet_and_command_prints_what_is_shown(folder: Path) -> None:
    page = Page("tutorial.md", run_here)
    for block in BLOCKS[:FIRST_FILE]:
        page.run(block)


def test_new_components_pass_their_contracts_and_train(folder: Path) -> None:
    copy = folder / "easycap"
    for part in COPIED:
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    (copy / "photos").mkdir()
    for number in range(4):
        scene(number).save(copy / "photos" / f"{number}.jpg")
    page = Page("tutorial.md", partial(run_in, copy))
    for block in (*BLOCKS[FIRST_FILE:], *EXTENDING):
        if block.option("file") is not None:
            write_file(copy, block)
        elif block.option("line of") is not None:
            insert_line(copy, block)
        else:
            page.run(block)
    for project in ("my_gru", "broken"):  # no part of easycap, with a style of their own
        shutil.rmtree(copy / project)
    for check in (
        "ruff check .",
        "ruff format --check .",
        "pytest -q tests/test_rooms.py -k 'short or above'",
    ):
        code, printed = run_in(copy, shlex.split(check))
        assert code == 0, printed


def test_the_picture_is_small_and_can_be_drawn_again(tmp_path: Path) -> None:
    assert (ROOT / "docs" / "scene.png").stat().st_size < 100_000
    script = str(ROOT / "docs" / "draw_pictures.py")
    subprocess.run([sys.executable, script, str(tmp_path)], check=True, cwd=ROOT)
    assert (tmp_path / "scene.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        ("a b", "a  b\n"),
        ("loss 5.30", "loss 5.33"),
        ("(8, 16) ... end", "(8, 16) one\ntwo end"),
        ("...\nend\n...", "end"),
        ("-0.00", "0.01"),
        ("v1.2.3", "v1.2.3"),
        ("a ──── b", "a ── b"),
    ],
)
def test_agrees(shown: str, real: str) -> None:
    assert agrees(shown, real)


@pytest.mark.parametrize(
    ("shown", "real"),
    [("a b", "a c"), ("loss 5.30", "loss 7.30"), ("(8, 16)", "(8, 17)"), ("a", "a b"), ("a ... c", "a b")],
)
def test_does_not_agree(shown: str, real: str) -> None:
    assert not agrees(shown, real)


def test_decimals_may_differ_by_an_amount() -> None:
    assert agrees("person 2.4  model 0.6", "person 2.4  model 0.1", tolerance=0.3, difference=0.5)
    assert not agrees("person 2.4  model 0.6", "person 2.4  model 1.2", tolerance=0.3, difference=0.5)
    block = Block("python", "", 1, "within 30% or 0.5")
    assert block.agrees("0.6", "0.1") and not block.agrees("0.6", "0.05")


def test_with_an_infinite_tolerance_numbers_stand_for_any_number_and_words_for_themselves() -> None:
    anything = float("inf")
    assert agrees("2,100 steps, loss 5.30", "2 steps, loss 70.1", tolerance=anything)
    assert not agrees("2,100 steps", "2 epochs", tolerance=anything)
