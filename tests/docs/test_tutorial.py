"""docs/tutorial.md, run from top to bottom: each snippet and command, with the output that it shows."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from markdown_blocks import Block, agrees, read_blocks

from easycap import cli

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
BLOCKS = read_blocks(TUTORIAL)
FIRST_FILE = next(number for number, block in enumerate(BLOCKS) if block.note.startswith("file "))
COPIED = ("easycap", "conf", "tests/models")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder with an outputs/ of its own; hands are off the user's cache and W&B."""
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    for name, value in {
        "EASYCAP_OUTPUTS": str(tmp_path / "outputs"),
        "EASYCAP_CACHE": str(tmp_path / "cache"),
        "WANDB_MODE": "disabled",
        "HYDRA_FULL_ERROR": "1",
        "COLUMNS": "80",
        "OMP_NUM_THREADS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def test_every_snippet_and_command_prints_what_is_shown(folder: Path):
    namespace: dict[str, object] = {"__name__": "tutorial"}
    shell = Shell(run_here)
    for block in BLOCKS[:FIRST_FILE]:
        if block.note == "skip":
            continue
        if block.language == "python":
            compare(block, "this", block.output or "", run_python(block, namespace))
        elif block.language == "console":
            shell.run(block)


def test_the_new_decoder_passes_the_contract_and_trains(folder: Path):
    copy = folder / "easycap"
    for part in COPIED:
        shutil.copytree(ROOT / part, copy / part)
    shutil.copy(ROOT / "setup.cfg", copy)
    shell = Shell(lambda words: run_in_copy(copy, words))
    for block in BLOCKS[FIRST_FILE:]:
        if block.note == "skip":
            continue
        if block.note.startswith("file "):
            write_file(copy / block.note.removeprefix("file "), block)
        elif block.note.startswith("line of "):
            insert_line(copy, block)
        elif block.language == "console":
            shell.run(block)
        else:
            assert block.language == "text", f"line {block.line}: nothing runs this block"


def test_links_lead_somewhere():
    text = TUTORIAL.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in target]
    assert len(targets) > 20
    missing = [target for target in targets if not (TUTORIAL.parent / target).exists()]
    assert not missing


def test_the_picture_is_small_and_can_be_drawn_again(tmp_path: Path):
    assert (ROOT / "docs" / "scene.png").stat().st_size < 100_000
    script = str(ROOT / "docs" / "draw_pictures.py")
    subprocess.run([sys.executable, script, str(tmp_path)], check=True, cwd=ROOT)
    assert (tmp_path / "scene.png").stat().st_size > 1000


# ------------------------------------------------------------------------------------------ the test's own tools


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        ("a b", "a  b\n"),
        ("loss 5.30", "loss 5.33"),
        ("(8, 16) ... end", "(8, 16) one\ntwo end"),
        ("...\nend\n...", "end"),
        ("-0.00", "0.01"),
        ("v1.2.3", "v1.2.3"),
    ],
)
def test_agrees(shown: str, real: str):
    assert agrees(shown, real)


@pytest.mark.parametrize(
    ("shown", "real"),
    [("a b", "a c"), ("loss 5.30", "loss 7.30"), ("(8, 16)", "(8, 17)"), ("a", "a b"), ("a ... c", "a b")],
)
def test_does_not_agree(shown: str, real: str):
    assert not agrees(shown, real)


class Shell:
    """Runs console blocks; `RUN=$(ls ...)` sets $RUN to the newest run."""

    def __init__(self, run_words: Callable[[list[str]], tuple[int, str]]) -> None:
        self.run_words, self.newest_run = run_words, ""

    def run(self, block: Block) -> None:
        for command, shown in block.commands():
            if command.startswith("RUN=$(ls "):
                runs = Path(os.environ["EASYCAP_OUTPUTS"], "runs").iterdir()
                self.newest_run = str(max(runs, key=lambda run: run.stat().st_mtime))
                continue
            code, real = self.run_words(shlex.split(command.replace("$RUN", self.newest_run)))
            compare(block, command, shown, real)
            expected = int(shown.startswith("easycap: "))  # an error in one sentence
            assert code == expected, f"tutorial.md:{block.line}: {command} exits with {code}"


def compare(block: Block, what: str, shown: str, real: str) -> None:
    if not agrees(shown, real, tolerance=block.tolerance):
        pytest.fail(
            f"tutorial.md:{block.line}: {what} printed\n{real}\nbut is shown to print\n{shown}", pytrace=False
        )


def run_python(block: Block, namespace: dict[str, object]) -> str:
    code = compile("\n" * (block.line - 1) + block.text, str(TUTORIAL), "exec")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, namespace)
    return printed.getvalue()


def run_here(words: list[str]) -> tuple[int, str]:
    """Run one command in this process (loading torch anew takes seconds); return its exit code and all it prints."""
    if words[0] != "easycap":
        return 0, subprocess.run(words, capture_output=True, text=True, check=True).stdout
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = cli.main(words[1:])
    finally:  # Hydra gave the root logger handlers that write to `printed` and into the run's folder
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers[:] = handlers
        logger.setLevel(level)
    return code, printed.getvalue()


def run_in_copy(copy: Path, words: list[str]) -> tuple[int, str]:
    """Run one command of the changed copy of the repository; return its exit code and all it prints."""
    modules = {"easycap": ["easycap.cli"], "pytest": ["pytest", "-p", "no:cacheprovider"]}
    command = [sys.executable, "-m", *modules[words[0]], *words[1:]]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]
    done = subprocess.run(
        command, cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


def write_file(path: Path, block: Block) -> None:
    assert not path.exists(), (
        f"line {block.line}: {path.name} is there already: the tutorial's name for it is taken"
    )
    path.write_text(block.text, encoding="utf-8")


def insert_line(copy: Path, block: Block) -> None:
    name, after = block.note.removeprefix("line of ").split(" after: ")
    lines = (copy / name).read_text(encoding="utf-8").split("\n")
    lines.insert(lines.index(after) + 1, block.text.rstrip("\n"))
    (copy / name).write_text("\n".join(lines), encoding="utf-8")
