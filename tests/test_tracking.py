"""Tracking: the run's own files, W&B as an offline mirror that never asks, and files that are never half written."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tiny import TINY

from easycap.config import check
from easycap.launch import compose
from easycap.tracking import trackers
from easycap.tracking.run_folder import RunFolder, new_run_folder
from easycap.train import train


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run", command="easycap train")


def test_numbers_that_are_not_finite_are_written_as_null(folder: RunFolder) -> None:
    folder.append_metrics({"a": float("nan"), "b": float("inf"), "c": 1 / 3}, step=4)
    line = json.loads((folder.path / "metrics.jsonl").read_text())
    assert (line["step"], line["a"], line["b"], line["c"]) == (4, None, None, 0.3333333)


def test_the_clock_goes_on_where_the_last_leg_logged(folder: RunFolder) -> None:
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "seconds": 1000.5}\n{"step": 2, "seco')
    again = RunFolder(folder.path, command="easycap train")
    assert 1000.5 <= again.seconds() < 1060 and folder.seconds() < 60


def test_results_of_several_splits_live_together(folder: RunFolder) -> None:
    folder.update_result({"scores": {"test": {"x": 1}}, "seed": 1})
    assert folder.update_result({"scores": {"val": {"x": 2}}}) == {
        "scores": {"test": {"x": 1}, "val": {"x": 2}},
        "seed": 1,
    }


def test_two_evaluations_at_once_lose_no_result(folder: RunFolder) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: folder.update_result({"scores": {f"test{n}": {"x": n}}}), range(40)))
    result = json.loads((folder.path / "result.json").read_text())
    assert result["scores"] == {f"test{n}": {"x": n} for n in range(40)}


def test_captions_are_in_cocos_results_format(folder: RunFolder) -> None:
    folder.write_captions("test", {"42": "a dog", "007": "a cat", "x1": "é"})
    rows = json.loads((folder.path / "captions.test.json").read_text(encoding="utf-8"))
    assert rows[0] == {"image_id": 42, "caption": "a dog"}
    assert [row["image_id"] for row in rows[1:]] == ["007", "x1"]
    folder.write_captions("several", {"42": ["a dog", "dogs"]})
    rows = json.loads((folder.path / "captions.several.json").read_text(encoding="utf-8"))
    assert rows == [{"image_id": 42, "caption": "a dog"}, {"image_id": 42, "caption": "dogs"}]


def test_the_start_and_the_command_outlive_an_evaluation(folder: RunFolder) -> None:
    folder.write_status("running")
    first = json.loads((folder.path / "status.json").read_text())
    RunFolder(folder.path, command="easycap evaluate").write_status("completed")
    later = json.loads((folder.path / "status.json").read_text())
    assert later["command"] == "easycap train" and later["started"] == first["started"]
    assert (first["ended"], later["status"]) == (None, "completed")


def test_two_runs_in_one_second_have_two_folders(tmp_path: Path) -> None:
    assert new_run_folder(tmp_path, ["a"]) != new_run_folder(tmp_path, ["a"])


def wandb_settings(*overrides: str) -> dict[str, Any]:
    tiny = [o for o in TINY if not o.startswith("tracking")]
    return check(compose([*tiny, "tracking=wandb", *overrides])[0])


def read_offline(run: Path) -> dict[str, Any]:
    """What W&B's own reader finds in the newest offline file of a run."""
    newest = max(run.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(newest)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.fixture
def without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.usefixtures("without_a_key")
def test_a_crashed_run_is_failed_in_wandb_and_leaks_into_no_other(tmp_path: Path) -> None:
    explodes = ("optim.lr=1e30", "optim.matrix_lr=1e30", "trainer.clip_norm=null", "seed=7")
    with pytest.raises(ValueError, match="the loss is"):
        train(wandb_settings(*explodes), tmp_path / "crashed", command="")
    train(wandb_settings("tracking.group=sweep", "tracking.tags=[mine]"), tmp_path / "whole", command="")
    crashed, whole = read_offline(tmp_path / "crashed"), read_offline(tmp_path / "whole")
    assert (crashed["state"], crashed["exit_code"], crashed["config"]["seed"]) == ("failed", 1, 7)
    assert (whole["state"], whole["exit_code"], whole["config"]["seed"]) == ("finished", 0, 1)
    assert whole["run_id"] != crashed["run_id"] and whole["name"] == "whole"
    assert {"mine", "decoder: causal_lm", "data: scenes"} <= set(whole["tags"])
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert whole["summary"]["test/CIDEr-D"] == result["scores"]["test"]["CIDEr-D"]["value"]
    assert whole["summary"]["cost/total_parameters"] == result["cost"]["total_parameters"]
    assert set(whole["summary"]["val/loss"]) == {"min"} and set(whole["summary"]["val/CIDEr-D"]) == {"max"}
    assert whole["summary"]["test/captions"]["ncols"] > 5 and whole["summary"]["samples"]["count"] == 2


@pytest.mark.usefixtures("without_a_key")
def test_a_resumed_run_goes_on_under_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("easycap.train._evaluate", stop)
        train(wandb_settings(), tmp_path / "run", command="")
    first = read_offline(tmp_path / "run")["run_id"]
    train(wandb_settings() | {"resume": str(tmp_path / "run")}, tmp_path / "run", command="")
    files = list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2 and {file.stem for file in files} == {f"run-{first}"}


def test_a_key_makes_it_online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert not trackers._has_key()
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert trackers._has_key()


def test_a_run_that_an_oracle_helps_has_a_tag_that_says_so() -> None:
    config = {"data": {"name": "scenes"}, "tags": {"name": "none"}, "draft": {"name": "own"}}
    assert trackers._choices(config) == ["data: scenes"]
    for group in ("tags", "draft"):
        assert trackers._choices(config | {group: {"name": "oracle"}}) == ["data: scenes", "oracle"]


def test_an_unknown_mode_is_named(folder: RunFolder) -> None:
    settings = {"project": "p", "entity": None, "group": None, "tags": [], "folder": folder, "config": {}}
    with pytest.raises(ValueError, match="tracking.mode='ofline'"):
        trackers.wandb(mode="ofline", **settings)
