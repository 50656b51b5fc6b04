"""For Python users: train, evaluate and compare, as the commands of these names do. `easycap.load` is in predict.py."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easycap.config.other_set import OtherSetConfig, other_set_config
from easycap.config.overrides import override_text
from easycap.errors import UserError
from easycap.runs.ensembles import evaluation_folder, members_to_load
from easycap.runs.find import find_run, is_pretrained
from easycap.runs.run_folder import new_run_folder
from easycap.tasks.prepared_run import PreparedRun, prepare
from easycap.utils.paths import outputs_dir

if TYPE_CHECKING:
    from easycap.predict import Captioner

Overrides = Sequence[str] | Mapping[str, Any]
Scores = dict[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Run:
    """A trained run: its folder and its result.json."""

    folder: Path

    @property
    def result(self) -> dict[str, Any]:
        """Return result.json: scores, cost, data, vocabulary and more."""
        found: dict[str, Any] = json.loads((self.folder / "result.json").read_text(encoding="utf-8"))
        return found

    @property
    def scores(self) -> Scores:
        """Return {split: {metric: {"value", "low", "high", "signature"}}}; papers report a CIDEr-D of 1.0 as 100."""
        return self.result.get("scores", {})

    def load(self, *, device: str = "auto") -> Captioner:
        """Return `easycap.load` of the run."""
        from easycap.predict import load

        return load(self.folder, device=device)


def train(overrides: Overrides = (), *, folder: str | os.PathLike[str] | None = None) -> Run:
    """Train a run as `easycap train` does, evaluate it and write its report.

    `overrides`: those of the command line (["decoder=lstm", "trainer.epochs=2"]) or a mapping
    {"decoder": "lstm", "trainer.epochs": 2}; `folder` is the run's, a new one in outputs/runs
    if None. Sweeps and several ranks need the command. Raises `UserError` for settings that
    are wrong, before anything is written.
    """
    words = overrides_of(overrides)
    if folder is not None:
        words.append(f"hydra.run.dir={Path(folder).absolute()}")
    prepared = prepare(words)
    if not prepared.is_completed:
        prepared.run(lambda: _train_and_report(prepared))
    return Run(prepared.folder)


def _train_and_report(prepared: PreparedRun) -> None:
    from easycap.report import write_report
    from easycap.train import train as train_config

    train_config(prepared.config, prepared.folder, command=prepared.command)
    write_report(prepared.folder)


def overrides_of(overrides: Overrides) -> list[str]:
    """Return overrides as command-line arguments."""
    if isinstance(overrides, str):
        raise UserError(f"overrides {overrides!r} must be a list: [{overrides!r}]")
    if not isinstance(overrides, Iterable):
        raise UserError(f"overrides {overrides!r} must be a list of strings or a mapping")
    if not isinstance(overrides, Mapping):
        return [str(word) for word in overrides]
    return [override_text(key, value) for key, value in overrides.items()]


def evaluate(
    run: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    ensemble: bool = False,
    folder: str | os.PathLike[str] | None = None,
    split: str | None = None,
    data: Overrides = (),
    name: str | None = None,
    decoding: str | None = None,
    samples: int | None = None,
    rounds: int | None = None,
    metrics: Iterable[str] = (),
    clip: str | os.PathLike[str] | None = None,
    group_by: Iterable[str] = (),
    batch_size: int | None = None,
    device: str = "auto",
    locations: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    command: str = "easycap.evaluate",
) -> Scores:
    """Caption a split with a run's best weights and score it; return {split: {metric: {"value", ...}}} of `Run.scores`.

    The arguments are the options of `easycap evaluate`. `data` names another set than the
    run's own (["data=coco", "data.root=DIR"]), `locations` {"data.root": DIR} says where
    the data is now if it has moved, and `command` is stored with the scores, in the run's folder. With `ensemble`
    several runs, or a sweep's, caption together, and are a run of their own in `folder` or in outputs/runs. So is
    hf:NAME_OR_FOLDER, a pretrained captioner of transformers, scored on `data` with settings as in `overrides`
    ["captioner.prompt=a photo of"].
    Raises `UserError` for arguments that do not exist or do not fit.
    """
    _check_options(samples, batch_size, clip)
    runs = [Path(run)] if isinstance(run, (str, os.PathLike)) else [Path(one) for one in run]
    target = evaluation_folder(runs, ensemble=ensemble, folder=None if folder is None else Path(folder))
    asked: dict[str, Any] = {"split": split, "group_by": list(group_by), "batch_size": batch_size}
    asked |= {"command": command, "device": device, **_options(decoding, samples, rounds, metrics, clip)}
    if is_pretrained(runs[0]):
        labels = _evaluate_pretrained(runs[0], target, [*overrides, *overrides_of(data)], name, **asked)
    else:
        if overrides:
            raise UserError(f"{' '.join(overrides)}: a run has its own settings; these are for hf:NAME")
        other, known = _other_set(overrides_of(data), dict(locations or {}), name)
        members = members_to_load(list(map(find_run, runs)), ensemble=ensemble)
        labels = _evaluate_runs(target, members, other, known, **asked)
    scores = Run(target).scores
    return {label: scores[label] for label in labels}


def _evaluate_runs(
    target: Path,
    members: list[Path] | None,
    other: OtherSetConfig | None,
    known: dict[str, str],
    *,
    split: str | None,
    group_by: list[str],
    batch_size: int | None,
    command: str,
    device: str,
    **options: Any,
) -> list[str]:
    """The labels of the scores of a run, or of the `members` of an ensemble, on its own data or the `other` set."""
    from easycap.tasks.load_ensemble import evaluated_run, load_models
    from easycap.tasks.other_sets import evaluation_set, load_other_set

    task = load_models(
        target,
        members,
        device=device,
        locations=known if other is None else None,
        with_data=True,
        data_may_be_missing=other is not None,
    )
    other_set = None if other is None else load_other_set(task, other, known)
    images = evaluation_set(task, split, target, other=other_set, group_by=group_by)
    with evaluated_run(target, members, command=command) as folder_of_run:
        return task.evaluate(
            images,
            folder_of_run,
            batch_size=task.config["validation"]["batch_size"] if batch_size is None else batch_size,
            command=command,
            choose_threads=True,
            **options,
        )


def _evaluate_pretrained(
    name: Path, folder: Path, overrides: list[str], set_name: str | None, *, device: str, **asked: Any
) -> list[str]:
    """The labels of the scores of hf:NAME, whose run is made in `folder`."""
    from easycap.config.pretrained_names import pretrained_config
    from easycap.tasks.pretrained_run import evaluate_pretrained

    if set_name is not None:
        raise UserError(
            f"the name {set_name} is for another set than a run's own: {name} has none, leave it out, and name the "
            "run itself with --folder"
        )
    if not any(word.lstrip("+").startswith("data=") for word in overrides):
        raise UserError(f"name the images to score {name} on, e.g. data=folder data.images=DIR")
    return evaluate_pretrained(pretrained_config(name, overrides, device=device), folder, **asked)


def average(
    runs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    last: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    command: str = "easycap.average",
) -> Run:
    """Average weights as `easycap average` does; return the run that has them, to be evaluated like any run.

    For one run, it averages the epochs that trainer.keep_checkpoints kept, or only the `last` of them; for several
    runs, checkpoints or a sweep, the best weights. `folder` is that of the new run (None: one in outputs/runs). Raises
    `UserError`, before anything is written, if architectures or vocabularies differ.
    """
    from easycap.tasks.averaged_run import checkpoints_to_average, make_averaged_run

    names = [runs] if isinstance(runs, (str, os.PathLike)) else runs
    checkpoints = checkpoints_to_average([Path(name) for name in names], last=last)
    choices = ["average", str(len(checkpoints))]
    target = new_run_folder(outputs_dir() / "runs", choices) if folder is None else Path(folder)
    make_averaged_run(checkpoints, target, command=command)
    return Run(target)


def _options(
    decoding: str | None,
    samples: int | None,
    rounds: int | None,
    metrics: Iterable[str],
    clip: str | os.PathLike[str] | None,
) -> dict[str, Any]:
    from easycap.metrics.scoring import metric_names

    names = metric_names(",".join(metrics)) if metrics else ()
    given = {"decoding": decoding, "samples": samples, "rounds": rounds, "metrics": names or None}
    return _without_none(**given, clip=None if clip is None else Path(clip))


def _without_none(**options: Any) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _check_options(samples: int | None, batch_size: int | None, clip: str | os.PathLike[str] | None) -> None:
    if samples is not None and samples < 2:
        raise UserError(f"samples={samples} must be at least 2")
    if batch_size is not None and batch_size < 1:
        raise UserError(f"the batch size {batch_size} must be at least 1")
    if clip is not None and not Path(clip).is_dir():
        raise UserError(f"clip={clip} is not a folder; it must hold a CLIP saved by transformers")


def _other_set(
    overrides: Sequence[str], locations: Mapping[str, str], name: str | None
) -> tuple[OtherSetConfig | None, dict[str, str]]:
    """The set that overrides of data name, if any, and the locations that are not its own."""
    if not overrides:
        if name is not None:
            raise UserError(
                f"the name {name} is for another set than the run's own: give its overrides, e.g. data=coco "
                "data.root=DIR"
            )
        return None, dict(locations)
    moved = [f"{key}={path}" for key, path in locations.items() if key.startswith("data.")]
    rest = {key: path for key, path in locations.items() if not key.startswith("data.")}
    return other_set_config([*overrides, *moved], name), rest


def compare(
    runs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    split: str = "test",
    metrics: Iterable[str] | None = None,
    columns: Iterable[str] | None = None,
    over_seeds: bool = False,
) -> list[dict[str, Any]]:
    """Return the table of `easycap compare` as rows {column: value}, one for each run.

    `runs` are folders or names of runs or sweeps. Columns are the run, the settings that
    differ, scores (with "METRIC low", "METRIC high", "METRIC signature", "METRIC differs") and costs;
    numbers are as in result.json, and None where there is none. With `over_seeds` runs that
    differ only in the seed are one row: mean, and "METRIC sd".
    """
    from easycap.report.comparison import read_comparison, rows_of, table_of

    paths = [runs] if isinstance(runs, (str, os.PathLike)) else list(runs)
    comparison = read_comparison(
        [find_run(Path(path)) for path in paths],
        split=split,
        metrics=None if metrics is None else tuple(metrics),
    )
    table = table_of(comparison, wanted=None if columns is None else tuple(columns), over_seeds=over_seeds)
    return rows_of(comparison, table)
