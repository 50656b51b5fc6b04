"""A run of averaged weights: the last epochs of one run, or several runs that started from the same weights."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from easycap.config.instantiate import condition_names
from easycap.config.schema import to_plain, to_yaml
from easycap.errors import UserError
from easycap.runs.ensembles import commands_of, is_ensemble
from easycap.runs.find import checkpoint_of, epochs_kept, find_run, run_of, shown
from easycap.runs.reading import is_run, read_result, runs_in
from easycap.runs.recording import Recording
from easycap.runs.run_folder import RunFolder
from easycap.tasks.create import task_class
from easycap.tasks.initial_weights import checkpoint_config
from easycap.training.weight_average import save_average
from easycap.vocab.same import same_vocabulary

logger = logging.getLogger(__name__)

# Folders of a run that are not a text condition's.
_NOT_CONDITIONS = ("checkpoints", "samples", "tensorboard", "wandb")
# Settings that change nothing about what the weights mean.
_FREE = ("dropout", "pretrained", "weights", "features", "embedding")


def checkpoints_to_average(runs: Sequence[Path], *, last: int | None) -> list[Path]:
    """Return what to average: for one run, the checkpoints of its `last` epochs (None: all that it kept); for several
    runs, checkpoints or a sweep, the best ones.

    Raises `UserError` if there are fewer than two, or fewer than `last`.
    """
    folders = [find_run(run) for run in runs]
    sources = [one for folder in folders for one in ([folder] if _is_one(folder) else runs_in([folder]))]
    if len(sources) > 1:
        if last is not None:
            raise UserError(
                "--last applies to the epochs of one run; leave it out to average the best checkpoints of several runs"
            )
        return [checkpoint_of(source) for source in sources]
    kept = epochs_kept(sources[0] / "checkpoints")
    if last is not None and last < 2:
        raise UserError(f"--last {last} must be at least 2")
    if len(kept) < (last or 2):
        checkpoint_of(sources[0])  # raises for a folder that was never trained in
        raise UserError(
            f"{shown(sources[0])} kept {len(kept)} epochs, but {last or 2} are needed: train with "
            f"trainer.keep_checkpoints={max(last or 5, 2)}, or name several runs"
        )
    return kept[-(last or 0) :]


def _is_one(folder: Path) -> bool:
    """Whether it is a run or a checkpoint, or something that `checkpoint_of` has a sentence for."""
    return is_run(folder) or is_ensemble(folder) or (folder / "config.json").is_file() or not folder.is_dir()


def make_averaged_run(checkpoints: Sequence[Path], folder: Path, *, command: str) -> None:
    """Make the run `folder` whose best weights are the mean of those of `checkpoints`; it can be used like any run.

    Raises `UserError`, before the folder is made, unless all are of one architecture and vocabulary. A warning is
    logged if they did not start from the same weights.
    """
    if folder.exists():
        raise UserError(f"{folder} already exists: choose another folder")
    configs = [checkpoint_config(one, device="auto") for one in checkpoints]
    _check_alike(checkpoints, configs)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as partial:
        save_average(checkpoints, Path(partial) / "best")
        run = RunFolder(folder, command=command)
        with Recording(run):
            (folder / "checkpoints").mkdir()
            (Path(partial) / "best").rename(folder / "checkpoints" / "best")
            _copy_conditions(run_of(checkpoints[-1]), folder)
            names = [shown(one) for one in checkpoints]
            about = {"average": {"size": len(checkpoints), "of": names}}
            run.write_config(to_yaml(about | to_plain(configs[-1])))
            run.update_result(
                _result([run_of(one) for one in checkpoints]) | {"average": names} | commands_of(checkpoints)
            )


def _copy_conditions(source: Path, folder: Path) -> None:
    """Copy what the text conditions of a run have saved there."""
    for one in source.iterdir() if is_run(source) else ():
        if one.is_dir() and one.name not in _NOT_CONDITIONS and not one.name.startswith("."):
            shutil.copytree(one, folder / one.name)


def _result(runs: Sequence[Path]) -> dict[str, Any]:
    """What result.json has of the runs, each of which counts once: data and vocabulary of the last, the summed time."""
    results = [read_result(run) or {} for run in dict.fromkeys(runs)]
    costs = [result.get("cost") or {} for result in results]
    found = {name: results[-1][name] for name in ("data", "vocabulary") if name in results[-1]}
    cost = {
        name: costs[-1][name] for name in ("total_parameters", "trainable_parameters") if name in costs[-1]
    }
    for name in ("wall_seconds", "train_seconds"):
        if all(one.get(name) is not None for one in costs):
            cost[name] = sum(one[name] for one in costs)
    return found | {"cost": cost}


def _check_alike(checkpoints: Sequence[Path], configs: Sequence[dict[str, Any]]) -> None:
    last, of_last = checkpoints[-1], configs[-1]
    groups = ("encoder", "image_tokens", "decoder", "tagger", *condition_names(of_last))
    vocabulary = task_class(of_last).load_vocabulary(of_last, last)
    for checkpoint, config in zip(checkpoints[:-1], configs[:-1], strict=True):
        pair = f"{shown(checkpoint)} and {shown(last)}"
        if config["task"] != of_last["task"] or condition_names(config) != condition_names(of_last):
            raise UserError(f"{pair} are different models: average runs with the same architecture")
        for group in groups:
            if (key := _differing(config[group], of_last[group])) is not None:
                raise UserError(
                    f"{pair} are different models: {group}.{key} is {to_plain(config[group].get(key))} and "
                    f"{to_plain(of_last[group].get(key))}"
                )
        if not same_vocabulary(task_class(config).load_vocabulary(config, checkpoint), vocabulary):
            raise UserError(f"{pair} have different vocabularies: average runs with the same one")
    starts = {
        (str(config["init_from"]), None if config["init_from"] else config["seed"]) for config in configs
    }
    if len(starts) > 1:
        logger.warning(
            "these runs did not start from the same weights (other seed or init_from): their average is usually "
            "worse than each of them; use an ensemble instead (easycap evaluate RUN RUN --ensemble)"
        )


def _differing(settings: Mapping[str, Any], others: Mapping[str, Any]) -> str | None:
    """The first setting of two groups that differs and matters."""
    for key in dict.fromkeys([*settings, *others]):
        if not key.startswith(_FREE) and settings.get(key) != others.get(key):
            return key
    return None
