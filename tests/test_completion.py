"""Completion of commands, settings and runs, in Python and in the shells that are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from easycap.cli import main
from easycap.commands.completion import candidates


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("easycap ", {"train", "score", "completion"}),
        ("easycap da", {"data"}),
        ("easycap data ", {"check", "guess"}),
        ("easycap train deco", {"decoder=", "decoding="}),
        ("easycap train decoder", {"decoder=", "decoder."}),
        ("easycap train decoder=l", {"decoder=lstm"}),
        ("easycap train seed=3 experiment=easycap/q", {"experiment=easycap/quickstart"}),
        ("easycap train decoder=lstm decoder.hid", {"decoder.hidden_dim="}),
        ("easycap train se", {"seed="}),
        ("easycap data check data=coco data.ro", {"data.root="}),
        ("easycap score a.json b.json --met", {"--metrics"}),
        ("easycap completion z", {"zsh"}),
    ],
)
def test_the_last_word_is_completed(line: str, some: set[str]) -> None:
    found = candidates(line)
    assert some <= set(found) and all(word.startswith(line.rpartition(" ")[2]) for word in found)


@pytest.mark.parametrize("line", ["easycap nothing ", "easycap train nothing=", "easycap train no.thing"])
def test_nothing_is_made_up(line: str) -> None:
    assert candidates(line) == []


def test_fields_are_those_of_the_chosen_option() -> None:
    assert "decoder.embed_dim=" not in candidates("easycap train decoder=m2 decoder.")
    assert "decoder.name=" not in candidates("easycap train decoder=m2 decoder.")


def test_runs_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYCAP_OUTPUTS", str(tmp_path))
    (tmp_path / "runs" / "20261130-first").mkdir(parents=True)
    assert candidates("easycap caption 2026") == ["20261130-first"]


def test_a_shell_without_a_script_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bsh"]) == 2 and "did you mean 'bash'" in capsys.readouterr().err


def in_shell(shell: str, script: str, tmp_path: Path) -> list[str]:
    """What a script prints, with `easycap` as a command."""
    command = tmp_path / "easycap"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m easycap "$@"\n')
    command.chmod(0o755)
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": root}
    done = subprocess.run([shell, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


BASH = """
eval "$(easycap completion bash)"
COMP_LINE="{line}" COMP_POINT=${{#COMP_LINE}}
_easycap
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("easycap comp", ["compare", "completion"]),
        ("easycap train decoder=ls", ["lstm"]),  # bash's word begins after the =
        ("easycap train decoder=lstm decoder.hid", ["decoder.hidden_dim="]),
    ],
)
def test_bash(line: str, expected: list[str], tmp_path: Path) -> None:
    assert in_shell("bash", BASH.format(line=line), tmp_path) == expected


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish(tmp_path: Path) -> None:
    script = "easycap completion fish | source\ncomplete -C 'easycap train decoder=ls'"
    assert "decoder=lstm" in in_shell("fish", script, tmp_path)


ZSH = """
compdef() { :; }
compadd() { while [[ $1 != -- ]]; do shift; done; shift; print -l -- "$@" }
_files() { print files }
eval "$(easycap completion zsh)"
LBUFFER="easycap train decoder=ls" _easycap
LBUFFER="easycap score a" _easycap
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh(tmp_path: Path) -> None:
    assert in_shell("zsh", ZSH, tmp_path) == ["decoder=lstm", "files"]
