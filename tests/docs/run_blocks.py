"""Runs the blocks of a Markdown file: Python in this process, commands in this process or in another folder."""

from __future__ import annotations

import configparser
import contextlib
import io
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from markdown_blocks import Block

from easycap import cli

RunWords = Callable[[list[str]], tuple[int, str]]


class Page:
    """Runs blocks of the file `name` one after another; Python blocks share their variables.

    `run_words` runs the words of a command and returns (exit code, all that is printed); `scale` returns
    the words to run in place of those shown.
    """

    def __init__(
        self, name: str, run_words: RunWords, scale: Callable[[list[str], Block], list[str]] | None = None
    ) -> None:
        self.name, self.run_words = name, run_words
        self.scale = scale or (lambda words, block: words)
        self.variables: dict[str, object] = {"__name__": "page"}
        self.newest = ""

    def run(self, block: Block) -> None:
        """Run a block and compare what it prints with what is shown."""
        if block.option("skip") is not None:
            return
        if block.language == "python":
            self.compare(block, "this", block.output or "", self._python(block))
        elif block.language == "console":
            for command, shown in block.commands():
                self._command(block, command, shown)
        else:
            assert block.language == "text", f"{self.name}:{block.line}: nothing runs this block"
        if (made := block.option("makes")) is not None:
            newest_run().rename(runs_folder() / made)

    def compare(self, block: Block, what: str, shown: str, real: str) -> None:
        if not block.agrees(shown, real):
            message = f"{what} printed\n{real}\nbut is shown to print\n{shown}"
            pytest.fail(f"{self.name}:{block.line}: {message}", pytrace=False)

    def _python(self, block: Block) -> str:
        code = compile("\n" * (block.line - 1) + block.text, self.name, "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, self.variables)
        return printed.getvalue()

    def _command(self, block: Block, command: str, shown: str) -> None:
        if command.startswith("RUN=$(ls "):
            self.newest = str(newest_run())
            return
        words = shlex.split(command.replace("$RUN", self.newest), comments=True)
        code, real = self.run_words(self.scale(words, block))
        expected = int(shown.startswith("easycap: ") or block.option("fails") is not None)
        if code != expected:
            pytest.fail(f"{self.name}:{block.line}: {command} exits with {code}:\n{real}", pytrace=False)
        if shown.strip():
            self.compare(block, command, shown, real)


def runs_folder() -> Path:
    """The folder of all runs of the test."""
    return Path(os.environ["EASYCAP_OUTPUTS"], "runs")


def newest_run() -> Path:
    """The folder of the run made last."""
    return max(runs_folder().iterdir(), key=lambda run: (run / "config.yaml").stat().st_mtime)


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


def run_in(folder: Path, words: list[str]) -> tuple[int, str]:
    """Run one command with the copy of the repository in `folder`; return its exit code and all it prints."""
    site = folder.parent / "site"
    if words[:3] == ["pip", "install", "-e"]:
        install(folder / words[3], site)
        return 0, ""
    modules = {"easycap": ["easycap.cli"], "ruff": ["ruff"], "pytest": ["pytest", "-p", "no:cacheprovider"]}
    command = [sys.executable, "-m", *modules[words[0]], *words[1:]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (folder, site)))}
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


def install(project: Path, site: Path) -> None:
    """Put a project where Python finds it and its entry points; pip, which may not be there, would build it first."""
    about = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shutil.copytree(project / "src", site, dirs_exist_ok=True)
    folder = site / f"{about['name']}-{about['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Name: {about['name']}\nVersion: {about['version']}\n")
    entries = configparser.ConfigParser()
    entries.read_dict(about["entry-points"])
    with (folder / "entry_points.txt").open("w", encoding="utf-8") as file:
        entries.write(file)


def write_file(root: Path, block: Block) -> None:
    """Write a block whose note says `file PATH`."""
    path = root / str(block.option("file"))
    assert not path.exists(), f"line {block.line}: {path.name} exists: the name in the text is taken"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, encoding="utf-8")


def insert_line(root: Path, block: Block) -> None:
    """Insert a block whose note says `line of PATH after: LINE`."""
    name, after = str(block.option("line of")).split(" after: ")
    lines = (root / name).read_text(encoding="utf-8").split("\n")
    lines.insert(lines.index(after) + 1, block.text.rstrip("\n"))
    (root / name).write_text("\n".join(lines), encoding="utf-8")
