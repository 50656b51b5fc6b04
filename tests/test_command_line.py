"""What people type: settings as flags, lists and spaces in --decoding, a plus before an experiment, odd folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easycap.cli import main
from easycap.commands import train as launch
from easycap.config.schema import option_from_text, split_settings
from easycap.errors import UserError


@pytest.mark.parametrize(
    "text",
    [
        "sample,top_p=0.8,may_repeat=[a,the]",
        "sample, top_p=0.8, may_repeat=[a, the]",
        "sample top_p=0.8 may_repeat=[a, the]",
        "sample, top_p = 0.8, may_repeat =[a, the]",
        "sample\ttop_p= 0.8 may_repeat\t=\t[a, the]",
        "  sample ,, top_p=0.8  may_repeat=['a','the'], ",
    ],
)
def test_decoding_reads_lists_and_spaces(text: str) -> None:
    found = option_from_text("decoding", text, seed=3)
    assert (found["name"], found["top_p"], found["may_repeat"]) == ("sample", 0.8, ("a", "the"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample,top_p", "'top_p' in .* must be key=value"),
        ("sample,top_p =", "'top_p=' in|must be"),
        ("sample, = 0.8", "'=0.8' in .* must be key=value"),
        ("sample,may_repeat=[a", "cannot be parsed; write lists as"),
        ("", "decoding '' does not exist"),
    ],
)
def test_other_decodings_are_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        option_from_text("decoding", text, seed=3)


values = st.text("ab1. ", min_size=1, max_size=5).map(str.strip).filter(bool)


@given(
    st.lists(st.lists(values, max_size=3), min_size=1, max_size=4), st.sampled_from([",", ", ", " ", " , "])
)
def test_parts_are_split_outside_of_brackets_alone(lists: list[list[str]], separator: str) -> None:
    parts = ["beam", *(f"key=[{separator.join(one)}]" for one in lists)]
    assert split_settings(separator.join(parts)) == parts


def cfg(capsys: pytest.CaptureFixture, *argv: str) -> str:
    assert main(["train", *argv, "--cfg", "job"]) == 0
    return capsys.readouterr().out


def test_settings_may_be_written_as_flags(capsys) -> None:
    """A sweep of W&B runs its command with --seed=3 --trainer.epochs=2."""
    shown = cfg(capsys, "--seed=3", "--trainer.epochs=2", "--tracking=none")
    assert "\nseed: 3\n" in shown and "epochs: 2\n" in shown and "name: none" in shown


def test_a_setting_as_a_flag_without_its_value_is_told_how_to_be_written(capsys) -> None:
    assert main(["train", "--seed", "3"]) == 2
    assert "write settings as seed=VALUE" in capsys.readouterr().err


def test_an_experiment_with_a_plus(capsys) -> None:
    plain = cfg(capsys, "experiment=easycap/quickstart", "tracking=none")
    assert cfg(capsys, "+experiment=easycap/quickstart", "tracking=none") == plain


def test_flags_of_hydra_stay(monkeypatch) -> None:
    for flag in ("--cfg=job", "-m", "--info=all"):  # --config-dir is taken before
        assert launch._as_override(flag) == flag


def test_data_at_two_places_is_no_axis_and_it_is_said_what_to_write(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EASYCAP_OUTPUTS", str(tmp_path))
    assert main(["train", "-m", "data=coco", "data.root=A,B", "tracking=none"]) == 1
    assert "train separate runs: easycap train ... data.root=" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["queue.py", "types.py", "logging.py", "rich.py"])
def test_python_m_beside_a_file_of_pythons_own_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("raise SystemExit('the wrong file')")
    (tmp_path / "c.json").write_text('[{"image_id": 1, "caption": "a dog"}]')
    (tmp_path / "r.json").write_text('{"1": ["a dog"]}')
    command = [sys.executable, "-m", "easycap.cli", "score", "c.json", "r.json"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


COMMANDS = [
    ["--help"],
    ["train", "--help"],
    ["score", "--help"],
    ["nonsense"],
    ["runs"],
    ["score"],
    ["compare"],
]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE")
@pytest.mark.parametrize("argv", COMMANDS, ids=" ".join)
def test_a_command_ends_without_a_word_when_its_reader_has_gone(argv: list[str], tmp_path: Path) -> None:
    """easycap --help | head -1: 141, as of a program that SIGPIPE ends, or 0 or the command's own code."""
    for name in ("a", "b"):
        folder = tmp_path / "outputs" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("seed: 1")
        (folder / "status.json").write_text('{"status": "completed"}')
        (folder / "result.json").write_text('{"scores": {"test": {"CIDEr-D": {"value": 0.5}}}}')
    (tmp_path / "c.json").write_text('[{"image_id": 1, "caption": "a dog"}]')
    (tmp_path / "r.json").write_text('{"1": ["a dog"]}')
    files = {"runs": ["outputs"], "score": ["c.json", "r.json"], "compare": ["outputs/a", "outputs/b"]}
    words = [*argv, *files.get(argv[-1], [])]
    gone, output = os.pipe()
    os.close(gone)
    for errors in (subprocess.PIPE, subprocess.STDOUT):
        done = subprocess.run(
            [sys.executable, "-m", "easycap", *words], cwd=tmp_path, stdout=output, stderr=errors, timeout=60
        )
        # argparse passes over a reader that has gone in Python 3.11, not in 3.13
        expected = {"nonsense": [2 if errors == subprocess.PIPE else 141], "score --help": [0, 141]}
        assert done.returncode in expected.get(" ".join(argv), [141])
        assert b"Traceback" not in (done.stderr or b"") and b"Broken" not in (done.stderr or b"")
    os.close(output)


def test_a_broken_pipe_of_another_kind_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(argv: list[str]) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("easycap.commands.runs.main", fail)
    assert main(["runs"]) == 1
    assert "unexpected BrokenPipeError" in capsys.readouterr().err
