"""`easycap train`: from a config to a trained, evaluated and reported run. `python -m easycap.train` is the same.

config -> data, vocabulary, captioner -> fit -> captions of the test splits -> scores -> report
"""

from __future__ import annotations

import logging
import platform
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from easycap.build import with_architecture
from easycap.config import config_hash, to_plain, to_yaml
from easycap.evaluate import caption_examples, evaluate_split
from easycap.experiment import Experiment
from easycap.rehearsal import rehearse
from easycap.runs import checkpoint_of
from easycap.tagging import TagExperiment, evaluate_tags, experiment_class
from easycap.tracking.run_folder import RunFolder, write_atomically
from easycap.training.checkpoint import newest, read_progress, remove_leftovers
from easycap.training.fit import Fit
from easycap.training.ranks import Ranks, joined
from easycap.types import Dataset, Tracker
from easycap.vocab.survey import Survey, survey

logger = logging.getLogger(__name__)

# Above this share of training captions without their end, captions are noticeably learnt too short.
_MANY_CUT = 0.02


def train(config: dict[str, Any], path: Path, *, command: str) -> float:
    """Run one checked config in the folder `path`, or go on there; return the best validation metric.

    A folder that holds a run is only gone on with if the config says `resume`. Whatever happens, status.json says
    how it ended.
    """
    if (path / "status.json").exists() and not config["resume"]:
        raise ValueError(
            f"{path} holds a run already; go on with it by resume={path}, or choose another folder"
        )
    config = with_architecture(config)
    folder = RunFolder(path, command=command)
    folder.write_config(to_yaml(config))
    folder.write_status("running")
    tracker = None
    try:
        rehearse(config)
        start = _tidy(path)
        with joined() as ranks:
            ranks.on_loss = partial(folder.write_status, "failed")
            ranks.share((config, path.absolute(), start))
            experiment = _prepare(config, start, ranks)  # before anything is tracked elsewhere
            experiment.beside.keep(path)
            tracker = experiment.tracker(folder, to_plain(config))
            best = _fit(experiment, tracker, folder, start)
            result = _evaluate(experiment, folder, command=command)
    except BaseException as error:
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
        folder.write_status("failed", reason)
        if tracker is not None:
            tracker.finish(None, status="failed", error=reason)
        raise
    tracker.finish(result, status="completed")
    remove_leftovers(path / "checkpoints", finished=True)
    return best


def follow() -> int:
    """What the ranks above 0 do: the same computations, on a config from rank 0, with no folder and no log."""
    logging.disable()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with joined() as ranks:
        config, path, start = ranks.share(None)
        experiment = _prepare(config, start, ranks)
        make_fit(experiment, _Silent(), path / "checkpoints", start).run()
        best = _best(experiment, path)
        for split in _test_splits(experiment):
            batch_size = config["validation"]["batch_size"]
            if isinstance(best, TagExperiment):
                best.probabilities(best.examples(split), batch_size)
            else:
                caption_examples(best, best.examples(split), best.generator(), batch_size, best.refinement())
    return 0


class _Silent:
    """The tracker of a rank that tracks nothing."""

    def log(self, values: Mapping[str, float], *, step: int) -> None: ...
    def samples(self, rows: Sequence[Mapping[str, Any]], *, step: int, epoch: int) -> None: ...
    def finish(self, result: Mapping[str, Any] | None, *, status: str, error: str | None = None) -> None: ...


def _prepare(config: dict[str, Any], start: Path | None, ranks: Ranks) -> Experiment:
    """Data, vocabulary, model; rank 0 draws or reads the data first, so that the others find it."""
    experiment = experiment_class(config)(config, start=start, ranks=ranks)
    with ranks.first_first():
        experiment.examples("train")
    experiment.captioner.to(experiment.device)
    with ranks.first_first():
        experiment.cache_features()
        for split in ("val", *_test_splits(experiment)):  # what is missing there is said before any training
            limit = config["validation"]["images"] if split == "val" else None
            experiment.beside.prepare(experiment.examples(split)[:limit], training=False)
    return experiment


def _tidy(run: Path) -> Path | None:
    """Return the checkpoint to go on from, None in a new run, and make the rest of the folder agree with it.

    What was measured after it is measured again: those lines of metrics.jsonl go.
    """
    checkpoints, metrics = run / "checkpoints", run / "metrics.jsonl"
    remove_leftovers(checkpoints, finished=False)
    for path in run.glob(".*.partial"):
        if path.is_file():  # a folder that was half copied is made anew by what copies it
            path.unlink()
    start = newest(checkpoints / "last")
    kept = 0 if start is None else read_progress(start)["logged"]
    if metrics.is_file():
        lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
        write_atomically(metrics, "".join(lines[:kept]))
    return start


def _fit(experiment: Experiment, tracker: Tracker, folder: RunFolder, start: Path | None) -> float:
    config = experiment.config
    folder.update_result({"data": data_summary(experiment.dataset)})
    _warn_of_frozen_random_weights(experiment)
    if isinstance(experiment, TagExperiment):
        known = f"{len(experiment.vocabulary.tags)} tags"
        vocabulary: dict[str, Any] = {"tags": len(experiment.vocabulary.tags)}
    else:
        _warn_of_rewards_from_the_start(config)
        _warn_of_savings_that_rewards_undo(config)
        surveys = vocabulary_surveys(experiment)
        known = f"{len(experiment.vocabulary)} words ({surveys['val'].coverage:.1%} of those in val)"
        vocabulary = _vocabulary_result(experiment, surveys)
    logger.info(
        "%d training images, %s, %.1f million parameters, %d steps on %s",
        len(experiment.examples("train")),
        known,
        sum(p.numel() for p in experiment.captioner.parameters()) / 1e6,
        experiment.trainer.total_steps(experiment.loader),
        experiment.device,
    )
    if not isinstance(experiment, TagExperiment):
        _tell_of_cut_captions(experiment, surveys["train"])
    fitted = make_fit(experiment, tracker, folder.path / "checkpoints", start).run()
    folder.update_result(
        {
            "cost": fitted.cost,
            "warnings": fitted.warnings,
            "ended_early": fitted.ended_early,
            "vocabulary": vocabulary,
            "objective": experiment.objective.signature,
            "config_hash": config_hash(config),
            "seed": config["seed"],
            "environment": environment(experiment.device) | {"ranks": experiment.ranks.count},
        }
    )
    return fitted.best


def _vocabulary_result(experiment: Experiment, surveys: Mapping[str, Survey]) -> dict[str, Any]:
    return {
        "size": len(experiment.vocabulary),
        **{
            name: {split: getattr(found, name) for split, found in surveys.items()} for name in Survey._fields
        },
    }


def make_fit(experiment: Experiment, tracker: Tracker, checkpoints: Path, start: Path | None) -> Fit:
    """Return the training of an experiment, ready to run, from the checkpoint `start` on if there is one."""
    return Fit(
        experiment.trainer,
        captioner=experiment.captioner,
        objective=experiment.objective,
        optimization=experiment.optimization(),
        loader=experiment.loader,
        validator=experiment.validator(),
        vocabulary=experiment.vocabulary,
        tracker=tracker,
        checkpoints=checkpoints,
        start=start,
        config=to_plain(experiment.config),
        device=experiment.device,
        ranks=experiment.ranks,
    )


def _best(experiment: Experiment, run: Path) -> Experiment:
    """The experiment with the run's best weights; the data is not read again."""
    device = experiment.config["device"]
    return type(experiment).from_checkpoint(checkpoint_of(run), device=device, data_of=experiment)


def _test_splits(experiment: Experiment) -> list[str]:
    return [name for name in experiment.dataset.splits if name.startswith("test")]


def _evaluate(experiment: Experiment, folder: RunFolder, *, command: str) -> dict[str, Any]:
    """Score the best weights on every test split."""
    best = _best(experiment, folder.path)
    batch_size = experiment.config["validation"]["batch_size"]
    for split in _test_splits(experiment):
        if isinstance(best, TagExperiment):
            evaluate_tags(best, folder, split, batch_size=batch_size, command=command)
        else:
            generator = best.generator()
            evaluate_split(best, folder, split, generator=generator, batch_size=batch_size, command=command)
    cost = {"wall_seconds": folder.seconds(), "peak_memory_bytes": _peak_memory(experiment.device)}
    return folder.update_result({"cost": cost})


def data_summary(dataset: Dataset) -> dict[str, Any]:
    """Return how many images each split has, and what was left out or repaired; the log says so too."""
    left_out = [finding for finding in dataset.findings if finding.left_out]
    for finding in left_out[:3]:
        logger.warning("left out: %s %s (image %r)", finding.file, finding.what, finding.id)
    if len(left_out) > 3:
        logger.warning("left out: %d in all, listed in result.json", len(left_out))
    return {
        "images": {split: len(examples) for split, examples in dataset.splits.items()},
        "left_out_count": len(left_out),
        "left_out": [{name: getattr(f, name) for name in ("split", "id", "file", "what")} for f in left_out],
        "repaired_count": len(dataset.findings) - len(left_out),
    }


def vocabulary_surveys(experiment: Experiment) -> dict[str, Survey]:
    """Return per split how the vocabulary and the decoder's word positions fit its references."""
    return {
        split: survey(
            experiment.vocabulary,
            (caption for example in examples for caption in example.references),
            max_words=experiment.captioner.decoder.max_words,
        )
        for split, examples in experiment.dataset.splits.items()
    }


def environment(device: torch.device) -> dict[str, Any]:
    """Return what the numbers were measured with: versions, commit, hardware."""
    packages = ("easycap", "torch", "torchvision", "transformers", "timm", "numpy", "pillow")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "platform": platform.platform(terse=True),
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "git_commit": git_commit(),
    }


def _warn_of_frozen_random_weights(experiment: Experiment) -> None:
    config = experiment.config
    starts_random = not config["encoder"].get("pretrained", False) and config["init_from"] is None
    has_weights = any(True for _ in experiment.captioner.encoder.parameters())
    if starts_random and has_weights and config["trainer"]["unfreeze_encoder_at_epoch"] != 0:
        logger.warning(
            "the encoder starts from random weights and is frozen (trainer.unfreeze_encoder_at_epoch=%s): its features "
            "hardly differ between images",
            to_plain(config["trainer"]["unfreeze_encoder_at_epoch"]),
        )


def _warn_of_rewards_from_the_start(config: dict[str, Any]) -> None:
    rewarded = config["objective"]["name"] == "scst" and not config["objective"]["xe_first"]
    if rewarded and config["init_from"] is None:
        logger.warning(
            "objective=scst begins with random weights, whose captions earn next to nothing: set init_from=RUN, or "
            "objective=xe_then_scst with trainer.patience"
        )


def _warn_of_savings_that_rewards_undo(config: dict[str, Any]) -> None:
    """Rewarded, a decoder is called by itself and in eval mode, where these settings do not reach it."""
    if config["objective"]["name"] != "scst":
        return
    if config["trainer"]["gradient_checkpointing"]:
        logger.warning(
            "trainer.gradient_checkpointing=true does not reach the decoder while captions are rewarded: "
            "objective.rows_per_pass is what bounds its memory then"
        )
    if config["trainer"]["compile"]:
        logger.warning("trainer.compile=true has no effect on steps in which captions are rewarded")


def _tell_of_cut_captions(experiment: Experiment, train: Survey) -> None:
    if train.truncated:
        logger.log(
            logging.WARNING if train.truncated > _MANY_CUT else logging.INFO,
            "%.2f%% of the training captions (%.1f words on average with vocab=%s) are cut to decoder.max_words=%d "
            "positions; a higher decoder.max_words keeps them whole",
            100 * train.truncated,
            train.length,
            experiment.config["vocab"]["name"],
            experiment.captioner.decoder.max_words,
        )


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux, in bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def git_commit() -> str | None:
    """Return what git calls the code that runs, with -dirty for changes; None outside of a checkout."""
    try:
        folder = Path(__file__).parent
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


if __name__ == "__main__":
    from easycap.cli import main

    raise SystemExit(main(["train", *sys.argv[1:]]))
