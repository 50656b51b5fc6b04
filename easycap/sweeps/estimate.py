"""How long a run would take, from timed steps: `python -m easycap.sweeps.estimate GROUP=OPTION ...`, one JSON line."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
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
from easycap.tasks.feature_caching import views_to_encode
from easycap.tasks.training import make_trainer
from easycap.train import create_task
from easycap.training.hardware import autocast
from easycap.training.trainer import Trainer
from easycap.types import Batch, Dataset
from easycap.utils.allocator import keep_freed_memory

_WARM_UP, _TIMED = 1, 5
_LONG = 2.0  # seconds of steps, or of decoding a batch, after which no more are timed
# Seconds that every process of a run needs before our first line of code, nearly all for imports.
_IMPORTS = time.process_time()


class Estimator:
    """Estimates of runs, all in this process: each distinct model is timed once, each data set read once.

    Called with a checked config it returns the seconds of a run of its own process, from start-up to the last score
    ("seconds"), and of its parts: "startup_seconds" (imports, reading data, building the model), "encoding_seconds" (of
    features that the run caches and no earlier one has), "step_seconds", "steps" and "caption_seconds". Data that is
    not generated yet is generated, and its time not counted. With `more_runs`, the config is one of several of a sweep.
    """

    def __init__(self, *, more_runs: bool = False) -> None:
        self.more_runs = more_runs
        self._timings: dict[str, _Timing] = {}
        self._encoded: set[str] = set()
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
        views = _what_is_cached(config)
        encoding = 0.0 if views in self._encoded else timing.encoding
        self._encoded.add(views)
        return {
            "seconds": timing.startup + encoding + timing.step * steps + timing.caption * captions,
            "startup_seconds": timing.startup,
            "encoding_seconds": encoding,
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
            views = views_to_encode(task, more_runs=self.more_runs)
            step = _seconds_per_step(trainer, encoded=views is not None)
            caption = _seconds_per_caption(task)
            encoding = _seconds_to_encode(task, views) if views else 0.0
        return _Timing(
            startup=startup,
            encoding=encoding,
            step=step,
            caption=caption,
            steps_per_epoch=trainer.epochs.per_epoch,
            validated=len(trainer.validator.examples),
            tested=sum(len(task.examples(split)) for split in task.test_splits),
            rounds=task.decodings_per_image,
        )


class _Timing(NamedTuple):
    """Seconds of one model's start-up, of encoding what it caches, of a step and a caption, and the counts that go with
    them.
    """

    startup: float
    encoding: float
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


def _what_is_cached(config: dict[str, Any]) -> str:
    """The settings that decide which features are cached, as text."""
    views = ("precision", "flip", "crop", "cached_crops", "cache_features", "unfreeze_encoder_at_epoch")
    parts = [
        config["task"],
        config["data"],
        config["encoder"],
        {key: config["trainer"][key] for key in views},
    ]
    return json.dumps(to_plain(parts), sort_keys=True)


def estimate(config: dict[str, Any]) -> dict[str, float]:
    """Return the estimate of one run; see `Estimator`."""
    return Estimator()(config)


def _seconds_per_step(trainer: Trainer, *, encoded: bool) -> float:
    """The median of some steps after the first; slow ones, which vary less, are timed for a few seconds only.

    With `encoded`, images are encoded before the clock starts, as if their features were cached.
    """
    trainer.model.train()
    seconds: list[float] = []
    for batches in islice(trainer.epochs.batches(trainer.state), _WARM_UP + _TIMED):
        if encoded:
            batches = [_encoded(batch, trainer) for batch in batches]
        started = time.perf_counter()
        trainer.train_step(batches)
        _wait_for(trainer.device)
        seconds.append(time.perf_counter() - started)
        if len(seconds) > _WARM_UP and sum(seconds) > _LONG:
            break
    return statistics.median(seconds[_WARM_UP:] or seconds)


@torch.no_grad()
def _encoded(batch: Batch, trainer: Trainer) -> Batch:
    """The batch with its images' features in their place."""
    with autocast(trainer.device, trainer.settings.precision):
        features = trainer.model.encode(batch.inputs.images.to(trainer.device))
    return replace(batch, inputs=replace(batch.inputs, images=features.patches.float()))


@torch.no_grad()
def _seconds_to_encode(task: Task, views: int) -> float:
    """Seconds to load and encode so many views of images, from the second of two batches: the first includes set-up."""
    examples = task.examples("val")[: task.config["validation"]["batch_size"]]
    task.model.eval()
    task.model.fold_encoder(views)
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        with task.pipeline.autocast():
            for batch in task.pipeline.batches(examples, len(examples)):
                task.model.encode(batch.inputs.images.to(task.device))
        _wait_for(task.device)
        seconds = time.perf_counter() - started
    return views * seconds / len(examples)


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
