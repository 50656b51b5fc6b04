"""Several trained captioners as one task: an ensemble."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from easycap.config.data_locations import without_locations
from easycap.config.schema import to_plain, to_yaml
from easycap.errors import UserError
from easycap.evaluation.ensemble_pipeline import ensemble_pipeline
from easycap.runs.ensembles import commands_of, is_ensemble, merged_config, write_members
from easycap.runs.find import checkpoint_of, run_of, shown
from easycap.runs.reading import read_result
from easycap.runs.recording import Recording
from easycap.runs.run_folder import RunFolder
from easycap.tasks.base import Task
from easycap.tasks.captioning import CaptioningTask
from easycap.tasks.create import load_task, task_class
from easycap.tasks.initial_weights import checkpoint_config
from easycap.vocab.same import same_vocabulary

# Keys of data that change nothing about which images there are.
_SAME_IMAGES = ("workers", "on_bad_image")


def load_models(run: Path, members: Sequence[Path] | None, **options: Any) -> Task:
    """Return the task of a run's best checkpoint, or of the `members` of an ensemble; `options` are `load_task`'s.

    Raises `UserError` if `run` is a checkpoint, which has no place for scores.
    """
    if members is not None:
        return load_ensemble(members, **options)
    checkpoint = checkpoint_of(run)
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is a checkpoint; give the run's folder that holds it")
    return load_task(checkpoint, **options)


@contextmanager
def evaluated_run(folder: Path, members: Sequence[Path] | None, *, command: str) -> Iterator[RunFolder]:
    """Open the folder that scores are added to, made first if it is that of a new ensemble of `members`.

    A new one is removed if its evaluation fails.
    """
    is_new = members is not None and not is_ensemble(folder)
    run = RunFolder(folder, command=command)
    with Recording(run) if is_new else nullcontext():
        if is_new and members is not None:
            record_ensemble(run, members)
        yield run


def load_ensemble(
    members: Sequence[Path],
    *,
    device: str,
    locations: Mapping[str, str] | None = None,
    with_data: bool = False,
    data_may_be_missing: bool = False,
) -> CaptioningTask:
    """Return the best checkpoints of `members` as one task; its settings are those of the first.

    The arguments are those of `load_task`. Raises `UserError`, before weights are loaded, unless all are captioners
    with one vocabulary and, `with_data`, of the same data.
    """
    checkpoints = [checkpoint_of(member) for member in members]
    configs = [checkpoint_config(one, device=device, locations=locations) for one in checkpoints]
    _check_members(members, checkpoints, configs, same_data=with_data and not data_may_be_missing)
    tasks: list[Task] = []
    for checkpoint in checkpoints:
        of_first = with_data and not tasks
        tasks.append(
            load_task(
                checkpoint,
                device=device,
                locations=locations,
                with_data=of_first,
                data_may_be_missing=data_may_be_missing,
            )
        )
    return as_ensemble([task for task in tasks if isinstance(task, CaptioningTask)])


def as_ensemble(members: Sequence[CaptioningTask]) -> CaptioningTask:
    """Return captioners with one vocabulary as one task, with the data and settings of the first."""
    task = copy.copy(members[0])
    task.pipeline = ensemble_pipeline([member.pipeline for member in members])
    task.conditions = task.pipeline.conditions
    read = {
        name: next(member.config[name] for member in members if member.conditions.get(name) is condition)
        for name, condition in task.conditions.items()
    }
    task.config = members[0].config | read
    return task


def _check_members(
    members: Sequence[Path],
    checkpoints: Sequence[Path],
    configs: Sequence[dict[str, Any]],
    *,
    same_data: bool,
) -> None:
    first, first_config = members[0], configs[0]
    for member, config in zip(members, configs, strict=True):
        if task_class(config) is not CaptioningTask:
            kind = (
                "a tag model" if config["task"] == "tags" else f"a captioner of {config['captioner']['name']}"
            )
            raise UserError(
                f"{shown(member)} is {kind}: an ensemble takes only captioners of easycap's own parts"
            )
    vocabulary = CaptioningTask.load_vocabulary(first_config, checkpoints[0])
    for member, checkpoint, config in zip(members[1:], checkpoints[1:], configs[1:], strict=True):
        if not same_vocabulary(CaptioningTask.load_vocabulary(config, checkpoint), vocabulary):
            raise UserError(
                f"{shown(member)} has a different vocabulary from {shown(first)}: an ensemble needs runs with the "
                "same one"
            )
        if same_data and _data_of(config) != _data_of(first_config):
            raise UserError(
                f"{shown(member)} was trained on different data from {shown(first)}: name the data to evaluate on, "
                "e.g. data=coco data.root=DIR"
            )


def _data_of(config: dict[str, Any]) -> dict[str, Any]:
    data = without_locations("data", to_plain(config["data"]))
    return {key: value for key, value in data.items() if key not in _SAME_IMAGES}


def record_ensemble(run: RunFolder, members: Sequence[Path]) -> None:
    """Write what makes a folder the run of an ensemble: its members, their configs as one, and what they cost."""
    configs = [to_plain(checkpoint_config(checkpoint_of(member), device="auto")) for member in members]
    write_members(run.path, members)
    run.write_config(to_yaml(merged_config(configs, [shown(member) for member in members])))
    results = [read_result(run_of(checkpoint_of(member))) or {} for member in members]
    costs = [result.get("cost") or {} for result in results]
    summed = {
        name: sum(cost[name] for cost in costs)
        for name in ("wall_seconds", "train_seconds", "total_parameters", "trainable_parameters")
        if all(cost.get(name) is not None for cost in costs)
    }
    about = {name: results[0][name] for name in ("data", "vocabulary") if name in results[0]}
    run.update_result({"cost": summed, **about, **commands_of(map(checkpoint_of, members))})
