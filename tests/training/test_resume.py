"""A run that is killed and gone on with ends with the bits of one that was left alone, wherever it was killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from tiny import TINY

import easycap.train
import easycap.training.checkpoint as checkpoint
from easycap.config import check
from easycap.launch import compose
from easycap.train import train
from easycap.training.fit import Fit
from easycap.training.stop import OutOfTime, Stop
from easycap.training.validation import Validator

# Two epochs of three steps of two batches; dropout, so that random numbers matter.
SHORT = [
    "trainer.epochs=2", "trainer.accumulate=2", "trainer.checkpoint_every_steps=2", "data.val_images=4",
    "data.test_images=4", "trainer.captions_per_image=1", "decoder.dropout=0.1",
]  # fmt: skip


class Killed(BaseException):
    """Stands in for SIGKILL: nothing but train()'s own status is written after it."""


def run(path: Path, *overrides: str) -> Path:
    """A run in a new folder; where one is already, it goes on with its own config, changed only by `overrides`."""
    if (path / "config.yaml").exists():
        stored = OmegaConf.load(path / "config.yaml")
        config = check(OmegaConf.merge(stored, OmegaConf.from_dotlist([*overrides, f"resume={path}"])))
    else:
        config = check(compose([*TINY, *SHORT, *overrides])[0])
    train(config, path, command="")
    return path


def left_behind(path: Path) -> dict[str, Any]:
    """Everything that must not depend on kills: bits of the weights, what was measured, captions, progress."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds"), line.pop("train/images_per_second", None)
    kept = {
        file: hashlib.sha256((path / "checkpoints" / file).read_bytes()).hexdigest()
        for file in ("last/model.safetensors", "last/training.safetensors", "best/model.safetensors")
    }
    progress = checkpoint.read_progress(path / "checkpoints" / "best")
    kept |= {"best": (progress["step"], progress["best"]), "metrics": lines}
    kept["folders"] = sorted(folder.name for folder in (path / "checkpoints").iterdir())
    return kept | {"captions": (path / "captions.test.json").read_text()}


def killed(path: Path, owner: Any, name: str, number: int, *overrides: str) -> Path:
    """A run that dies at the `number`-th call of a function."""
    original: Callable = getattr(owner, name)
    calls = iter(range(1, 1000))

    def dying(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            raise Killed
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owner, name, dying)
        run(path, *overrides)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> dict[str, Any]:
    patch = pytest.MonkeyPatch()
    patch.setenv("EASYCAP_CACHE", str(scenes_cache))
    kept = left_behind(run(tmp_path_factory.mktemp("whole") / "run"))
    patch.undo()
    assert kept["folders"] == ["best", "last"]
    return kept


# Saves of `last`: step 2, step 3 before and after validation, steps 4, 6 and 6; each syncs twice, as does `best`.
@pytest.mark.parametrize(
    ("owner", "name", "number"),
    [
        pytest.param(Fit, "train_step", 2, id="before the first checkpoint"),
        pytest.param(Fit, "train_step", 6, id="in the second epoch"),
        pytest.param(Fit, "validate", 1, id="after the last step of an epoch"),
        pytest.param(Validator, "__call__", 2, id="in validation"),
        pytest.param(Fit, "freeze_or_release_encoder", 3, id="between epochs"),
        pytest.param(Fit, "save_best", 1, id="between last and best"),
        pytest.param(checkpoint, "_sync", 3, id="while saving"),
        pytest.param(checkpoint.Path, "rename", 2, id="between two renames"),
        pytest.param(easycap.train, "evaluate_split", 2, id="in the evaluation"),
    ],
)
def test_a_kill_leaves_no_trace(
    whole: dict[str, Any], tmp_path: Path, owner: Any, name: str, number: int
) -> None:
    assert left_behind(run(killed(tmp_path / "run", owner, name, number))) == whole


def test_worker_processes_change_nothing(whole: dict[str, Any], tmp_path: Path) -> None:
    assert left_behind(run(killed(tmp_path / "run", Fit, "train_step", 5, "trainer.workers=2"))) == whole


def test_drafts_go_on(tmp_path: Path) -> None:
    words = ["draft=noise", "draft.training.another=0.3", "draft.training.nothing=0.3", "refine.rounds=1"]
    left_alone = left_behind(run(tmp_path / "whole", *words))
    killed(tmp_path / "run", Fit, "train_step", 5, *words)
    assert left_behind(run(tmp_path / "run", "trainer.workers=1")) == left_alone


def test_the_share_of_own_words_goes_on(tmp_path: Path) -> None:
    settings = {"rate": 0.4, "max_share": 1, "every_epochs": 1}
    growing = [
        "objective=scheduled_sampling",
        *(f"objective.{key}={value}" for key, value in settings.items()),
    ]
    alone = left_behind(run(tmp_path / "alone", *growing))
    shares = [line["train/own_words"] for line in alone["metrics"] if "train/own_words" in line]
    assert shares == pytest.approx([0, 0, 0, 0.4, 0.4, 0.4])
    assert left_behind(run(killed(tmp_path / "run", Fit, "train_step", 5, *growing))) == alone


def test_a_damaged_checkpoint_is_gone_around(whole: dict[str, Any], tmp_path: Path, caplog) -> None:
    path = killed(tmp_path / "run", Fit, "train_step", 5)
    weights = path / "checkpoints/last/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert left_behind(run(path)) == whole
    assert "going on from last.previous" in caplog.text


def test_a_best_from_an_abandoned_future_does_not_count(tmp_path: Path, caplog) -> None:
    path = killed(tmp_path / "run", Fit, "train_step", 5)
    progress = path / "checkpoints/best/progress.json"
    progress.write_text(progress.read_text().replace('"step": 3', '"step": 99'))
    run(path)
    assert "looking for the best anew" in caplog.text
    assert checkpoint.read_progress(path / "checkpoints/best")["step"] == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_first(whole: dict[str, Any], tmp_path: Path, monkeypatch, number: int) -> None:
    original = Fit.train_step

    def signalled(self: Fit, batches: list) -> dict[str, float]:
        if self.reached.step == 4:
            os.kill(os.getpid(), number)
        return original(self, batches)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Fit, "train_step", signalled)
        run(tmp_path / "run", "trainer.workers=1")
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert (status["status"], status["error"]) == ("failed", "interrupted")
    assert checkpoint.read_progress(tmp_path / "run/checkpoints/last")["step"] == 5
    assert left_behind(run(tmp_path / "run")) == whole


def test_a_signal_in_validation_ends_at_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Validator, "__call__", lambda *args: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run")
    assert checkpoint.read_progress(tmp_path / "run/checkpoints/last")["step"] == 3


def test_a_second_signal_of_the_same_moment_does_not_hurry_and_a_later_one_does(monkeypatch) -> None:
    with Stop(None) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.interrupted
        monkeypatch.setattr("easycap.training.stop._IMPATIENT_SECONDS", 0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_many_short_sittings_make_one_run(whole: dict[str, Any], tmp_path: Path) -> None:
    for step in range(1, 7):
        with pytest.raises(OutOfTime, match=f"trainer.max_hours=1e-09 are over at step {step} of 6; saved"):
            run(tmp_path / "run", "trainer.max_hours=1e-9")
    assert left_behind(run(tmp_path / "run", "trainer.max_hours=null")) == whole


def test_patience_ends_a_run_and_a_kill_does_not_prolong_it(tmp_path: Path) -> None:
    overrides = ["trainer.patience=2", "trainer.epochs=9", "optim.matrix_lr=0", "optim.encoder_matrix_lr=0"]
    overrides += ["optim.lr=0", "optim.encoder_lr=0"]
    path = run(killed(tmp_path / "run", easycap.train, "evaluate_split", 1, *overrides))
    result = json.loads((path / "result.json").read_text())
    assert result["cost"]["steps"] == 9 and result["ended_early"].startswith(
        "CIDEr-D has not improved in 2 validations (trainer.patience): ended after step 9 of 27"
    )


def test_no_room_for_checkpoints_is_said_before_training(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    monkeypatch.setattr(Fit, "train_step", lambda *args: pytest.fail("trained"))
    with pytest.raises(ValueError, match="but its disk has 0 MB free"):
        run(tmp_path / "run")
