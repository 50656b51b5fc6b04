"""A run that is killed and resumed ends with the bits of one that was left alone, wherever it was killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.damage import edit, flip_a_bit
from helpers.interrupted_runs import killed, left_behind, run

import easycap.training.checkpoint_files as checkpoint
from easycap.errors import OutOfTime
from easycap.runs.reading import read_status
from easycap.tasks.captioning import CaptioningTask
from easycap.training.epochs import Epochs
from easycap.training.stop import Stop
from easycap.training.train_state import TrainState
from easycap.training.trainer import Trainer
from easycap.training.validation import Validator
from easycap.utils.processes import STOP_SIGNALS


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
        pytest.param(Trainer, "train_step", 2, id="before the first checkpoint"),
        pytest.param(Trainer, "train_step", 6, id="in the second epoch"),
        pytest.param(Trainer, "validate", 1, id="after the last step of an epoch"),
        pytest.param(Validator, "__call__", 2, id="in validation"),
        pytest.param(Trainer, "freeze_or_release_encoder", 3, id="between epochs"),
        pytest.param(Trainer, "save_best", 1, id="between last and best"),
        pytest.param(checkpoint, "_sync", 3, id="while saving"),
        pytest.param(checkpoint.Path, "rename", 2, id="between two renames"),
        pytest.param(CaptioningTask, "evaluate", 2, id="in the evaluation"),
    ],
)
def test_a_kill_leaves_no_trace(
    whole: dict[str, Any], tmp_path: Path, owner: Any, name: str, number: int
) -> None:
    assert left_behind(run(killed(tmp_path / "run", owner, name, number))) == whole


def test_worker_processes_change_nothing(whole: dict[str, Any], tmp_path: Path) -> None:
    assert left_behind(run(killed(tmp_path / "run", Trainer, "train_step", 5, "trainer.workers=2"))) == whole


def test_drafts_go_on(tmp_path: Path) -> None:
    words = ["draft=noise", "draft.training.another=0.3", "draft.training.nothing=0.3", "refine.rounds=1"]
    left_alone = left_behind(run(tmp_path / "whole", *words))
    killed(tmp_path / "run", Trainer, "train_step", 5, *words)
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
    assert left_behind(run(killed(tmp_path / "run", Trainer, "train_step", 5, *growing))) == alone


def test_a_damaged_checkpoint_is_gone_around(whole: dict[str, Any], tmp_path: Path, caplog) -> None:
    path = killed(tmp_path / "run", Trainer, "train_step", 5)
    weights = path / "checkpoints/last/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert left_behind(run(path)) == whole
    assert "resuming from last.previous" in caplog.text


def test_a_best_from_an_abandoned_future_does_not_count(tmp_path: Path, caplog) -> None:
    path = killed(tmp_path / "run", Trainer, "train_step", 5)
    progress = path / "checkpoints/best/progress.json"
    edit(progress, progress.read_text().replace('"step": 3', '"step": 99'))
    run(path)
    assert "the best is chosen again" in caplog.text
    assert checkpoint.read_progress(path / "checkpoints/best")["step"] == 6


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors", "vocab.json", "progress.json"])
def test_a_flipped_bit_changes_nothing(whole: dict[str, Any], tmp_path: Path, caplog, name: str) -> None:
    path = killed(tmp_path / "run", Trainer, "train_step", 6)
    flip_a_bit(path / "checkpoints/last" / name)
    assert left_behind(run(path)) == whole
    assert (
        f"last is damaged ({name} has changed since it was saved): resuming from last.previous" in caplog.text
    )


def test_a_damaged_best_is_saved_again(whole: dict[str, Any], tmp_path: Path, caplog) -> None:
    path = killed(tmp_path / "run", Trainer, "train_step", 4)  # its weights are those of `last`
    flip_a_bit(path / "checkpoints/best/model.safetensors")
    assert left_behind(run(path)) == whole
    assert "best is damaged: model.safetensors has changed" in caplog.text


def test_a_damaged_best_is_chosen_afresh(tmp_path: Path, caplog) -> None:
    path = killed(tmp_path / "run", Trainer, "train_step", 5)
    flip_a_bit(path / "checkpoints/best/vocab.json")
    run(path)
    assert "best is damaged: vocab.json has changed" in caplog.text and "is chosen again" in caplog.text
    assert checkpoint.read_progress(path / "checkpoints/best")["step"] == 6


def test_after_the_last_step_a_damaged_best_is_replaced_by_the_last_weights(tmp_path: Path, caplog) -> None:
    path = killed(tmp_path / "run", CaptioningTask, "evaluate", 1)
    best = path / "checkpoints/best"
    progress = checkpoint.read_progress(path / "checkpoints/last")
    for name in ("last", "best"):  # as if the first validation had been the best
        file = path / "checkpoints" / name / "progress.json"
        stored = json.loads(file.read_text())
        stored["progress"]["best_step"] = 3
        edit(file, json.dumps(stored))
    flip_a_bit(best / "model.safetensors")
    run(path)
    assert "is chosen again" in caplog.text and read_status(path).state == "completed"
    assert checkpoint.read_progress(best)["step"] == 6 == progress["step"]


@pytest.mark.parametrize("number", [signal.SIGINT, *STOP_SIGNALS])
def test_a_signal_saves_first(whole: dict[str, Any], tmp_path: Path, monkeypatch, number: int) -> None:
    original = Trainer.train_step

    def signalled(self: Trainer, batches: list) -> dict[str, float]:
        if self.state.step == 4:
            os.kill(os.getpid(), number)
        return original(self, batches)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_step", signalled)
        run(tmp_path / "run", "trainer.workers=1")
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert (status["status"], status["error"]) == ("interrupted", None)
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


def test_a_signal_ends_the_wait_for_a_batch_that_never_comes(
    whole: dict[str, Any], tmp_path: Path, monkeypatch
) -> None:
    original = Epochs.batches

    def hanging(self: Epochs, state: TrainState) -> Any:
        for batches in original(self, state):
            if state.step == 4:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
            yield batches

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Epochs, "batches", hanging)
        run(tmp_path / "run")
    assert read_status(tmp_path / "run").state == "interrupted"
    assert checkpoint.read_progress(tmp_path / "run/checkpoints/last")["step"] == 4
    assert left_behind(run(tmp_path / "run")) == whole


def test_two_resumes_at_once_train_once(tmp_path: Path, monkeypatch) -> None:
    path = killed(tmp_path / "run", Trainer, "train_step", 5)
    monkeypatch.setattr("easycap.runs.holding._SECONDS_TO_WAIT", 0.1)
    original = Trainer.train_step

    def resumed_again(self: Trainer, batches: list) -> Any:
        with pytest.raises(ValueError, match=f"{path} is being trained by another process"):
            run(path)
        return original(self, batches)

    monkeypatch.setattr(Trainer, "train_step", resumed_again)
    run(path)
    assert read_status(path).state == "completed"


def test_many_short_sittings_make_one_run(whole: dict[str, Any], tmp_path: Path) -> None:
    for step in range(1, 7):
        with pytest.raises(OutOfTime, match=f"trainer.max_hours=1e-09 reached at step {step} of 6; saved"):
            run(tmp_path / "run", "trainer.max_hours=1e-9")
        status = read_status(tmp_path / "run")
        assert status.state == "interrupted" and "max_hours" in status.error
    assert left_behind(run(tmp_path / "run", "trainer.max_hours=null")) == whole


def test_patience_ends_a_run_and_a_kill_does_not_prolong_it(tmp_path: Path) -> None:
    overrides = ["trainer.patience=2", "trainer.epochs=9", "optim.matrix_lr=0", "optim.encoder_matrix_lr=0"]
    overrides += ["optim.lr=0", "optim.encoder_lr=0"]
    path = run(killed(tmp_path / "run", CaptioningTask, "evaluate", 1, *overrides))
    result = json.loads((path / "result.json").read_text())
    assert result["cost"]["steps"] == 9 and result["ended_early"].startswith(
        "CIDEr-D has not improved in 2 validations (trainer.patience): ended after step 9 of 27"
    )


def test_no_room_for_checkpoints_is_said_before_training(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    monkeypatch.setattr(Trainer, "train_step", lambda *args: pytest.fail("trained"))
    with pytest.raises(ValueError, match="but its disk has 0 MB free"):
        run(tmp_path / "run")


# ------------------------------------------------------------------------------------- what is logged of an epoch


def said_of_epochs(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The line that each validated epoch has logged, the last of each: a killed one is validated again."""
    lines = [text for text in caplog.messages if text.startswith("epoch ") and "validation" in text]
    return list({line.partition(":")[0]: line for line in lines}.values())


def test_the_loss_said_of_an_epoch_is_its_mean_per_word_however_often_it_was_stopped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    taken = []

    def recorded(self: Trainer, batches: list, original: Callable = Trainer.train_step) -> Any:
        taken.append(original(self, batches))
        assert taken[-1].words == sum(int((b.targets != self.take_step.pad_id).sum()) for b in batches)
        return taken[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", recorded)
        run(tmp_path / "whole")
    alone = said_of_epochs(caplog)
    for line, steps in zip(alone, (taken[:3], taken[3:]), strict=True):
        mean = sum(s.values["loss"] * s.words for s in steps) / sum(s.words for s in steps)
        assert f"training loss {mean:.3f}  validation" in line
    caplog.clear()
    for _ in range(6):  # once after the last step of each epoch
        with pytest.raises(OutOfTime):
            run(tmp_path / "sittings", "trainer.max_hours=1e-9")
    run(tmp_path / "sittings", "trainer.max_hours=null")
    assert said_of_epochs(caplog) == alone


def test_a_checkpoint_of_an_earlier_version_is_gone_on_with(tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO")
    for _ in range(3):  # after the last step of the first epoch
        with pytest.raises(OutOfTime):
            run(tmp_path / "run", "trainer.max_hours=1e-9")
    file = tmp_path / "run/checkpoints/last/progress.json"
    stored = json.loads(file.read_text())
    for name in ("epoch_sums", "epoch_words"):
        del stored["progress"][name]
    edit(file, json.dumps(stored))
    run(tmp_path / "run", "trainer.max_hours=null")
    first, second = said_of_epochs(caplog)
    assert first.startswith("epoch 1: validation loss") and second.startswith("epoch 2: training loss")
    assert "nan" not in caplog.text


def test_images_per_second_count_loading_and_what_lies_between_steps(tmp_path: Path, monkeypatch) -> None:
    now = [0.0]

    def takes(seconds: float, original: Callable) -> Callable:
        def slow(self: Trainer, *args: Any) -> Any:
            now[0] += seconds
            return original(self, *args)

        return slow

    def loaded(self: Epochs, state: TrainState, original: Callable = Epochs.batches) -> Any:
        for batches in original(self, state):
            now[0] += 10.0
            yield batches

    monkeypatch.setattr("easycap.training.trainer.time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(Epochs, "batches", loaded)
    monkeypatch.setattr(Trainer, "train_step", takes(1.0, Trainer.train_step))
    monkeypatch.setattr(Trainer, "log", takes(0.5, Trainer.log))
    monkeypatch.setattr(Trainer, "run_validation", takes(1000.0, Trainer.run_validation))  # is not training
    cost = json.loads((run(tmp_path / "run") / "result.json").read_text())["cost"]
    assert (
        cost["train_seconds"] == 6 * 11 + 4 * 0.5
    )  # the logs after an epoch's last step are not between steps
    assert cost["images_per_second"] == pytest.approx(2 * 24 / cost["train_seconds"])
