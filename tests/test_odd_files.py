"""Damaged files, full disks, and names of files that a terminal or a spreadsheet would obey."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from helpers.fabricated_run import make

from easycap.commands.paired import read_system
from easycap.commands.sidecars import Table
from easycap.config.options import read_yaml
from easycap.data.images import BadImage, ImageFile
from easycap.errors import UserError
from easycap.runs import run_folder
from easycap.runs.find import shown
from easycap.runs.run_folder import RunFolder
from easycap.utils import files
from easycap.utils.console import console, say
from easycap.utils.files import read_mapping, write_atomically
from easycap.utils.text import csv_cell, from_csv_cell, printable
from easycap.vocab.word import WordVocabulary

DAMAGED = {"list": "[1, 2]", "cut": '{"a": ', "text": '"x"', "null": "null", "deep": "[" * 100_000}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"vocab\.json is damaged"):
        read_mapping(path)
    with pytest.raises(UserError, match=r"vocab\.json is damaged"):
        WordVocabulary.load(tmp_path)


@pytest.mark.parametrize("name", ["result.json", "per_image.test.json"])
def test_damaged_scores_of_a_run_are_named(name: str, tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    (run / name).write_text("[1, 2]")
    with pytest.raises(UserError, match=f"{name} is damaged"):
        read_system(run, "test")


def test_a_cut_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text('{"a": ')
    with pytest.raises(UserError, match=r"config\.yaml is not readable YAML"):
        read_yaml(tmp_path / "config.yaml")


def test_a_full_disk_leaves_the_status_failed_and_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "run", command="easycap train")
    run.write_status("running")

    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"result\.json") as caught:
        run.update_result({"scores": {}})
    run.write_status("failed", str(caught.value))
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["status"] == "failed"
    assert "No space left" in status["error"] and "result.json" in status["error"]


def test_other_faults_of_a_disk_do_not_overwrite_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "run", command="easycap train")
    run.write_status("completed")

    def denied(path: Path, value: object) -> None:
        raise PermissionError(errno.EACCES, "denied", str(path))

    monkeypatch.setattr(run_folder, "write_json", denied)
    with pytest.raises(PermissionError):
        run.write_status("failed")
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "completed"


def test_a_shorter_text_overwrites_a_longer_one_whole(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", "longer than the other")
    files.overwrite(tmp_path / "a", "short")
    assert (tmp_path / "a").read_text() == "short"


def test_a_named_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(BadImage, match="is a named pipe, not a file"):
        ImageFile(tmp_path / "pipe.jpg").load()


ODD_NAME = "\x1b[31mred\x1b]0;title\x07.jpg"


def test_a_terminal_is_not_told_what_to_do_by_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"{ODD_NAME}: a dog\nand a cat")
    console().print(ODD_NAME)
    console(stderr=True).print(ODD_NAME)
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert printed.out.startswith("\\x1b[31mred\\x1b]0;title\\x07.jpg: a dog\nand a cat\n")
    assert shown(f"it's {ODD_NAME}") == r"$'it\'s \x1b[31mred\x1b]0;title\x07.jpg'"
    assert printable("naïve\tcafé 犬\n") == "naïve\tcafé 犬\n"


@pytest.mark.parametrize(
    "text", ["=1+1", "+a", "-a", "@a", "'=1", "''@x", "a", "'a", "", "-1.5", "-1e-3", "\t=1"]
)
def test_no_cell_is_a_formula_and_all_are_read_back(text: str) -> None:
    cell = csv_cell(text)
    assert from_csv_cell(cell) == text
    assert cell[:1] not in ("=", "@", "\t")
    assert (cell != text) == (text[:1] in ("=", "@", "\t", "+") or text in ("-a", "'=1", "''@x"))
    assert csv_cell(-1.5) == -1.5


def test_a_table_of_captions_goes_on_after_a_quoted_name(tmp_path: Path) -> None:
    table = Table(tmp_path / "captions.csv", "csv", overwrite=False)
    table.write(Path("=1+1.jpg"), "- a dog")
    table.flush()
    assert (tmp_path / "captions.csv").read_text() == "file,caption\n'=1+1.jpg,'- a dog\n"
    assert Table(tmp_path / "captions.csv", "csv", overwrite=False).has(Path("=1+1.jpg"))
