"""Tracking: the run's own files, W&B as an offline mirror that never asks, and files that are never half written."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_config import TINY
from packaging.version import Version

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.errors import UserError
from easycap.runs import wandb_tracker
from easycap.runs.reading import read_status
from easycap.runs.run_folder import RunFolder, new_run_folder
from easycap.runs.trackers import chosen_parts
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


def test_the_clock_of_a_run_is_the_sum_of_its_legs_also_of_one_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("easycap.runs.run_folder._NOTED_EVERY", 0.01)

    def leg() -> RunFolder:
        return RunFolder(tmp_path / "run", command="easycap train", clock=lambda: now[0])

    first = leg()
    first.write_status("running")
    now[0] += 75
    first.append_metrics({"loss": 1.0}, step=1)
    now[0] += 105  # a long validation in which it is killed
    noted = tmp_path / "run" / ".seconds"
    deadline = time.monotonic() + 20
    while not noted.is_file() or json.loads(noted.read_text())["seconds"] < 180:
        assert time.monotonic() < deadline
    first._over.set()
    now[0] += 5000  # nobody runs it
    second = leg()
    second.write_status("running")
    now[0] += 20
    second.write_status("failed", "interrupted")
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["seconds"] == 200 and read_status(tmp_path / "run").seconds == 200
    now[0] += 5000
    assert leg().seconds() == 200


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


# Its `leet inspect` reads offline files.
needs_reader = pytest.mark.skipif(
    Version(version("wandb")) < Version("0.30"),
    reason="this version of wandb cannot read what it wrote offline",
)


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


@needs_reader
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


@needs_reader
@pytest.mark.usefixtures("without_a_key")
def test_a_resumed_run_goes_on_under_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("easycap.tasks.captioning.CaptioningTask.evaluate", stop)
        train(wandb_settings(), tmp_path / "run", command="")
    first = read_offline(tmp_path / "run")["run_id"]
    train(wandb_settings() | {"resume": str(tmp_path / "run")}, tmp_path / "run", command="")
    files = list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2 and {file.stem for file in files} == {f"run-{first}"}


KEYS = """
import sys
from easycap.runs.wandb_tracker import _has_key
sys.exit(0 if _has_key() else 3)
"""


def has_key(home: Path, **environment: str) -> bool:
    """In a process of its own: wandb reads its settings once."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    command = [sys.executable, "-c", KEYS]
    done = subprocess.run(
        command, env={**known, "HOME": str(home), **environment}, cwd=home, capture_output=True, text=True
    )
    assert done.returncode in (0, 3), done.stderr
    return done.returncode == 0


@pytest.mark.slow
def test_the_key_is_looked_for_under_the_server_that_is_configured(tmp_path: Path) -> None:
    assert not has_key(tmp_path)
    assert has_key(tmp_path, WANDB_API_KEY="x" * 40)
    file = tmp_path / ".netrc"
    file.write_text(f"machine wandb.example.org\n  login user\n  password {'x' * 40}\n")
    file.chmod(0o600)
    assert not has_key(tmp_path)
    assert has_key(tmp_path, WANDB_BASE_URL="https://wandb.example.org")


@pytest.fixture
def hanging_server() -> Iterator[str]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


REACH = """
import logging, sys, time
from pathlib import Path
from easycap.runs import wandb_tracker
from easycap.runs.run_folder import RunFolder
from easycap.runs.trackers import FileTracker, Trackers
wandb_tracker._TIMEOUT = 2
logging.basicConfig()
Path(sys.argv[1]).mkdir(exist_ok=True)
settings = wandb_tracker.WandbSettings(project="p", entity=None, group=None, tags=[], mode="online", also=[])
folder = RunFolder(Path(sys.argv[1]), command="")
tracker = Trackers([FileTracker(folder), wandb_tracker.wandb(folder, {}, settings=settings)])
tracker.log({"train/loss": 1.0}, step=1)
tracker.finish(None, status="completed")
"""


@pytest.mark.slow
@pytest.mark.parametrize("server", ["refuses", "hangs"])
def test_a_server_out_of_reach_leaves_the_run_offline(
    server: str, hanging_server: str, tmp_path: Path
) -> None:
    url = hanging_server if server == "hangs" else "http://127.0.0.1:9"
    known = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, "-c", REACH, str(tmp_path / "run")],
        env={**known, "WANDB_API_KEY": "x" * 40, "WANDB_BASE_URL": url},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("W&B cannot be reached, so this run is tracked offline") == 1
    assert len(list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))) == 1
    assert (tmp_path / "run" / "metrics.jsonl").is_file()


USUAL = {"project": "p", "entity": None, "group": None, "tags": [], "mode": "offline", "also": []}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tags": ["x" * 65]}, "has 65 characters; W&B accepts 1 to 64"),
        ({"tags": [""]}, "has 0 characters"),
        ({"group": "x" * 129}, "tracking.group has 129 characters"),
        ({"project": "x" * 129}, "tracking.project has 129 characters"),
        ({"project": "a/b"}, "tracking.project='a/b': W&B accepts none of"),
        ({"mode": "ofline"}, "tracking.mode='ofline' does not exist; did you mean 'offline'"),
    ],
    ids=["long tag", "empty tag", "long group", "long project", "odd project", "unknown mode"],
)
def test_what_wandb_does_not_take_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        wandb_tracker.WandbSettings(**USUAL | settings)


@pytest.mark.parametrize(
    ("asked", "mode"), [("dryrun", "offline"), ("run", "online"), ("disabled", "disabled")]
)
def test_modes_of_earlier_versions_are_known(asked: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", asked)
    assert wandb_tracker.WandbSettings(**USUAL | {"mode": None}).effective_mode() == mode
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(UserError, match="WANDB_MODE='ofline'"):
        wandb_tracker.WandbSettings(**USUAL | {"mode": None})


def test_a_run_that_an_oracle_helps_has_a_tag_that_says_so() -> None:
    config = {"data": {"name": "scenes"}, "tags": {"name": "none"}, "draft": {"name": "own"}}
    assert chosen_parts(config) == ["data: scenes"]
    for group in ("tags", "draft"):
        assert chosen_parts(config | {group: {"name": "oracle"}}) == ["data: scenes", "oracle"]
