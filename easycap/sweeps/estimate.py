"""How long a run would take, from timed steps: `python -m easycap.sweeps.estimate GROUP=OPTION ...`, one JSON line."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from easycap.config.compose import compose
from easycap.config.instantiate import condition_names
from easycap.config.schema import to_plain
from easycap.config.validate import validate
from easycap.errors import UserError
from easycap.runs.run_folder import RunFolder
from easycap.runs.trackers import FileTracker
from easycap.tasks.base import Task
from easycap.tasks.create import task_class
from easycap.tasks.dry_run import dry_run
from easycap.tasks.training import make_trainer
from easycap.train import create_task
from easycap.training.trainer import Trainer
from easycap.types import Dataset
from easycap.utils.allocator import keep_freed_memory

_WARM_UP, _TIMED = 1, 5
_LONG = 2.0  # seconds of steps, or of decoding a batch, after which no more are timed
# Seconds that every process of a run needs before our first line of code, nearly all for imports.
_IMPORTS = time.process_time()


class Estimator:
    """Estimates of runs, all in this process: each distinct model is timed once, each data set read once.

    Called with a checked config it returns the seconds of a run of its own process, from start-up to the last score
    ("seconds"), and of its parts: "startup_seconds" (imports, reading data, building the model), "step_seconds",
    "steps" and "caption_seconds". Data that is not generated yet is generated, and its time not counted.
    """

    def __init__(self) -> None:
        self._timings: dict[str, _Timing] = {}
        self._datasets: dict[str, Dataset] = {}

    def __call__(self, config: dict[str, Any]) -> dict[str, float]:
        """Return the estimate of a checked config, in seconds; see the class."""
        key = json.dumps(to_plain(_what_takes_time(config)), sort_keys=True)
        if key not in self._timings:
            self._timings[key] = self._time(config)
        timing, trainer = self._timings[key], config["trainer"]
        steps = trainer["max_steps"] or trainer["epochs"] * timing.steps_per_epoch
        epochs = -(-steps // timing.steps_per_epoch)
        validations = -(-epochs // config["validation"]["every_epochs"])
        captions = timing.rounds * (validations * timing.validated + timing.tested)
        return {
            "seconds": timing.startup + timing.step * steps + timing.caption * captions,
            "startup_seconds": timing.startup,
            "step_seconds": timing.step,
            "steps": steps,
            "caption_seconds": timing.caption,
        }

    def _time(self, config: dict[str, Any]) -> _Timing:
        data_from = ("task", "data", "encoder", *condition_names(config))  # what decides which data is read
        few = config["trainer"]["overfit_batch"] and config["trainer"]["batch_size"]
        key = json.dumps(to_plain([*(config[name] for name in data_from), few]))
        started = time.perf_counter()
        if key not in self._datasets:
            self._datasets[key] = task_class(config).read_data(config)
        task = create_task(config, self._datasets[key])
        with tempfile.TemporaryDirectory() as scratch:
            folder = RunFolder(Path(scratch), command="")
            checkpoints = folder.path / "checkpoints"
            trainer = make_trainer(task, None, tracker=FileTracker(folder), checkpoints=checkpoints)
            startup = _IMPORTS + time.perf_counter() - started
            trainer.freeze_or_release_encoder()
            trainer.choose_threads()
            step = _seconds_per_step(trainer)
            caption = _seconds_per_caption(task)
        return _Timing(
            startup=startup,
            step=step,
            caption=caption,
            steps_per_epoch=trainer.epochs.per_epoch,
            validated=len(trainer.validator.examples),
            tested=sum(len(task.examples(split)) for split in task.test_splits),
            rounds=task.decodings_per_image,
        )


class _Timing(NamedTuple):
    """Seconds of one model's start-up, training step and caption, and the counts that go with them."""

    startup: float
    step: float
    caption: float
    steps_per_epoch: int
    validated: int
    tested: int
    rounds: int


def _what_takes_time(config: dict[str, Any]) -> dict[str, Any]:
    """The config without settings that do not affect the time per step or caption: seed, schedule, training length."""
    left = {
        key: value for key, value in config.items() if key not in ("seed", "tracking", "resume", "schedule")
    }
    length = ("epochs", "max_steps", "patience", "max_hours", "checkpoint_every_steps", "log_every_steps")
    left["trainer"] = {key: value for key, value in config["trainer"].items() if key not in length}
    left["optim"] = config["optim"]["name"]
    left["validation"] = {
        k: v for k, v in config["validation"].items() if k not in ("every_epochs", "metric")
    }
    return left


def estimate(config: dict[str, Any]) -> dict[str, float]:
    """Return the estimate of one run; see `Estimator`."""
    return Estimator()(config)


def _seconds_per_step(trainer: Trainer) -> float:
    """The median of some steps after the first; slow ones, which vary less, are timed for a few seconds only."""
    trainer.model.train()
    seconds: list[float] = []
    for batches in islice(trainer.epochs.batches(trainer.state), _WARM_UP + _TIMED):
        started = time.perf_counter()
        trainer.train_step(batches)
        _wait_for(trainer.device)
        seconds.append(time.perf_counter() - started)
        if len(seconds) > _WARM_UP and sum(seconds) > _LONG:
            break
    return statistics.median(seconds[_WARM_UP:] or seconds)


def _seconds_per_caption(task: Task) -> float:
    """From decoding one batch: an untrained model rarely ends a caption before the maximum length, so this is an
    overestimate.

    A batch that was quick is decoded again, because the first time includes set-up.
    """
    examples = task.examples("val")[: task.config["validation"]["batch_size"]]
    task.model.eval()
    seconds: list[float] = []
    with torch.no_grad(), task.pipeline.autocast():
        while not seconds or (len(seconds) == 1 and seconds[0] < _LONG):
            started = time.perf_counter()
            for batch in task.pipeline.batches(examples, len(examples)):
                task.decode(batch.inputs.to(task.device))
            _wait_for(task.device)
            seconds.append(time.perf_counter() - started)
    return seconds[-1] / len(examples)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(overrides: Sequence[str]) -> int:
    """Print the estimate of the run that the overrides describe."""
    keep_freed_memory()
    config = validate(compose(overrides).config)
    dry_run(config, memory=True)
    print(json.dumps(estimate(config)))
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except UserError as error:
        raise SystemExit(str(error)) from None
