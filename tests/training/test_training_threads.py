"""A run's threads: found at its start without a trace in it, recorded, and kept when it is resumed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_config import TINY
from helpers.whole_runs import run_or_resume

import easycap.training.threads as training_threads
import easycap.training.trainer as trainer
from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.errors import UserError
from easycap.training.checkpoint_files import read_progress
from easycap.training.distributed import SINGLE_PROCESS, Ranks
from easycap.training.threads import SpeedWatch, choose_training_threads
from easycap.utils.cpu_threads import VARIABLES, Trial, restore_thread_count

SHORT = ["data.val_images=4", "data.test_images=4", "trainer.captions_per_image=1", "decoder.dropout=0.1"]


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for module in (training_threads, trainer):
        monkeypatch.setattr(module, "max_threads", lambda: 2)


def run(path: Path, *overrides: str) -> Path:
    return run_or_resume(path, *overrides, new=SHORT)


def found(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float]) -> list[list[int]]:
    """Let trials take real steps and then find these seconds; return the candidates of each trial."""
    tried = []

    def try_threads(work: Callable[[int], object], candidates: Sequence[int], **_: Any) -> Trial:
        tried.append(list(candidates))
        for count in (2, 4, 4):
            work(count)
        return Trial({number: seconds[number] for number in candidates}, 4)

    monkeypatch.setattr("easycap.training.step.try_threads", try_threads)
    return tried


def weights(path: Path) -> tuple[bytes, bytes]:
    last = path / "checkpoints" / "last"
    return (last / "model.safetensors").read_bytes(), (last / "training.safetensors").read_bytes()


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EASYCAP_CACHE", str(tmp_path_factory.mktemp("cache")))
        return weights(run(tmp_path_factory.mktemp("fixed") / "run", "trainer.threads=1"))


def test_a_run_that_tried_has_the_bits_of_one_that_did_not(
    fixed: tuple[bytes, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    before = torch.get_num_threads()
    tried = found(monkeypatch, {2: 4.0, 1: 1.0})
    path = run(tmp_path / "run")
    assert tried == [[2, 1]]
    assert weights(path) == fixed
    assert read_progress(path / "checkpoints" / "last")["threads"] == 1
    assert json.loads((path / "result.json").read_text())["environment"]["threads"] == 1
    assert "training with 1 thread (tried: 4 images/s with 1 thread, 1 images/s with 2 threads" in caplog.text
    assert torch.get_num_threads() == before


def test_a_resumed_run_takes_the_recorded_number_and_says_what_would_be_faster(
    fixed: tuple[bytes, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    found(monkeypatch, {2: 4.0, 1: 1.0})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer.Trainer, "validate", stop)
        run(tmp_path / "run", "trainer.checkpoint_every_steps=2")
    tried = found(monkeypatch, {2: 1.0, 1: 4.0})
    path = run(tmp_path / "run")
    assert tried == [[1, 2]]
    assert weights(path) == fixed
    assert "resuming with 1 thread, as before" in caplog.text
    assert "2 threads would be 4.0 times as fast now" in caplog.text


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


def chosen(setting: int | str = "auto", recorded: int | None = None, **known: Any) -> int:
    seconds = known.pop("seconds", {2: 1.0, 1: 2.0})
    with restore_thread_count():
        number = choose_training_threads(
            setting,
            recorded,
            on_cpu=known.get("on_cpu", True),
            ranks=known.get("ranks", SINGLE_PROCESS),
            try_threads=lambda candidates: Trial({n: seconds[n] for n in candidates}, 4),
        )
        assert torch.get_num_threads() == number
    return number


def refuse(candidates: Sequence[int]) -> Trial:
    raise AssertionError("nothing is to be tried")


def test_what_the_user_says_counts(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(training_threads, "usable_cores", lambda: 4)
    assert chosen(3) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert chosen() == torch.get_num_threads() and not caplog.text
    assert chosen(recorded=7) == torch.get_num_threads()
    assert "OMP_NUM_THREADS: resuming with 1 thread instead of 7" in caplog.text


def test_no_more_threads_than_cores(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(training_threads, "usable_cores", lambda: 2)
    with restore_thread_count():
        training_threads.use_configured_threads(999)
        assert torch.get_num_threads() == chosen(999) == 2
    assert caplog.messages == ["trainer.threads=999: using 2 threads, as this process may use no more cores"]


def test_all_are_taken_where_nothing_could_be_tried_or_on_a_gpu() -> None:
    assert chosen(seconds={2: 9.0, 1: 1.0}, on_cpu=False) == 2
    with restore_thread_count():
        none = choose_training_threads(
            "auto", None, on_cpu=True, ranks=SINGLE_PROCESS, try_threads=lambda candidates: Trial({})
        )
    assert none == 2


def test_ranks_come_to_one_number() -> None:
    """The other rank has fewer cores, and is the slower one with all of them."""

    class Two(Ranks):
        def all_reduce_max(self, value: int) -> int:
            return max(value, -2)

        def broadcast(self, value: Any) -> Any:
            return value

        def all_gather(self, value: Trial) -> list[Trial]:
            return [value, Trial({2: 50.0, 1: 12.0}, 8)]

    assert chosen(ranks=Two(0, 2), seconds={2: 1.0, 1: 2.0}) == 1


@pytest.mark.parametrize("value", ["two", "0", "-1", "true", "1.5"])
def test_other_settings_are_refused(value: str) -> None:
    config = compose([*TINY, f"trainer.threads={value}"])[0]
    with pytest.raises(UserError, match="trainer.threads="):
        from easycap.config.instantiate import build

        build("trainer", check(config)["trainer"])


def test_a_run_that_has_become_slow_is_noticed_once() -> None:
    watch = SpeedWatch()
    warned = [watch.add(32, 0.5) for _ in range(100)]
    warned += [watch.add(32, 1.5) for _ in range(30)]  # 45 seconds
    warned += [watch.add(32, 0.5) for _ in range(20)]
    assert not any(warned)
    warned = [one for _ in range(200) if (one := watch.add(32, 1.5))]
    assert warned == [(pytest.approx(32 / 1.5), pytest.approx(64.0))]


def test_a_step_that_does_more_than_before_is_not_slow() -> None:
    watch = SpeedWatch()
    for _ in range(100):
        watch.add(32, 0.5)
    watch.forget()
    assert not any(watch.add(32, 1.5) for _ in range(100))
