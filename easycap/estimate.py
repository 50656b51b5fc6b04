"""How long a run would take, from a few timed steps: `python -m easycap.estimate GROUP=OPTION ...`, one JSON line."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from easycap.experiment import Experiment
from easycap.launch import check_all, compose
from easycap.tagging import TagExperiment, experiment_class
from easycap.tracking.run_folder import RunFolder
from easycap.tracking.trackers import FileTracker
from easycap.train import make_fit

_WARM_UP, _TIMED = 2, 5


def estimate(config: dict[str, Any]) -> dict[str, float]:
    """Return the seconds a checked config would train and evaluate, and those of its steps and captions.

    Data is read, or made, once and not counted.
    """
    experiment = experiment_class(config)(config)
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch), command="")
        fit = make_fit(experiment, FileTracker(folder), folder.path / "checkpoints", None)
        fit.captioner.to(fit.device)
        fit.freeze_or_release_encoder()
        step = _seconds_per_step(fit)
        caption = _seconds_per_caption(experiment, fit)
    epochs = -(-fit.total_steps // fit.steps_per_epoch)
    validations = -(-epochs // config["validation"]["every_epochs"])
    tests = sum(
        len(examples) for split, examples in experiment.dataset.splits.items() if split.startswith("test")
    )
    rounds = 1 + experiment.refinement().rounds
    captions = rounds * (validations * len(fit.validator.examples) + tests)
    return {
        "seconds": step * fit.total_steps + caption * captions,
        "step_seconds": step,
        "steps": fit.total_steps,
        "caption_seconds": caption,
    }


def _seconds_per_step(fit: Any) -> float:
    fit.captioner.train()
    seconds = []
    for batches in islice(fit.batches_of_epoch(), _WARM_UP + _TIMED):
        started = time.perf_counter()
        fit.train_step(batches)
        _wait_for(fit.device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[_WARM_UP:] or seconds)


def _seconds_per_caption(experiment: Experiment, fit: Any) -> float:
    """Of decoding one batch: an untrained model writes until it may write no more, so this is rather too long."""
    examples = experiment.examples("val")[: experiment.config["validation"]["batch_size"]]
    fit.captioner.eval()
    if isinstance(experiment, TagExperiment):
        look = fit.captioner.probabilities
    else:
        generator = experiment.generator()
        look = lambda inputs: generator(fit.captioner.decoder, fit.captioner.remember(inputs))  # noqa: E731
    seconds = []
    with torch.no_grad(), fit.autocast():
        for _ in range(2):
            started = time.perf_counter()
            for batch in experiment.batches(examples, len(examples)):
                look(batch.inputs.to(fit.device))
            _wait_for(fit.device)
            seconds.append(time.perf_counter() - started)
    return seconds[-1] / len(examples)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(overrides: Sequence[str]) -> int:
    """Print the estimate of the run that the overrides describe."""
    print(json.dumps(estimate(check_all(compose(overrides)[0]))))
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except ValueError as error:
        raise SystemExit(str(error)) from None
