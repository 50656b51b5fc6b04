"""Score a pretrained captioner of transformers as it is: a run without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from easycap.config.schema import config_hash, to_yaml
from easycap.evaluation.evaluation_set import EvaluationSet, OtherSet, split_of_other
from easycap.evaluation.groups import usual_fields
from easycap.runs.environment import environment, peak_memory
from easycap.runs.recording import Recording
from easycap.runs.run_folder import RunFolder
from easycap.tasks.base import NO_DATA
from easycap.tasks.create import load_pretrained
from easycap.tasks.datasets import data_summary, read_other_set
from easycap.types import Dataset


def evaluate_pretrained(
    config: dict[str, Any],
    folder: Path,
    *,
    split: str | None,
    group_by: Sequence[str],
    batch_size: int | None,
    command: str,
    **options: Any,
) -> list[str]:
    """Caption and score images with the captioner of a config of hf:NAME in a new run; return the scores' labels.

    `split` is by default test, or what the data has. The run holds config, captions, scores and cost, and no weights.
    Nothing is left behind if it fails. Raises `UserError` for a model, data or `options` that cannot be used.
    """
    data = read_other_set(config)
    images = _images_of(config, data, split, group_by)
    task = load_pretrained(config, data if data.splits.get("train") else NO_DATA)
    run = RunFolder(folder, command=command)
    with Recording(run):
        run.write_config(to_yaml(config))
        labels = task.evaluate(
            images,
            run,
            batch_size=batch_size or config["validation"]["batch_size"],
            command=command,
            choose_threads=True,
            **options,
        )
        parameters = sum(parameter.numel() for parameter in task.model.parameters())
        run.update_result(
            {
                "pretrained": config["captioner"]["model"],
                "data": data_summary(data),
                "vocabulary": {"size": len(task.vocabulary)},
                "config_hash": config_hash(config),
                "seed": config["seed"],
                "environment": environment(task.device),
                "cost": {
                    "total_parameters": parameters,
                    "trainable_parameters": 0,
                    "wall_seconds": run.seconds(),
                    **peak_memory(task.device),
                },
            }
        )
    return labels


def _images_of(
    config: dict[str, Any], data: Dataset, split: str | None, group_by: Sequence[str]
) -> EvaluationSet:
    """The images of a split, as those of the run's own data."""
    found = split_of_other(OtherSet(data.name, config, data), split)
    fields = tuple(group_by) or usual_fields(found.examples)
    return EvaluationSet(
        found.split, found.split, found.examples, found.scorers, group_by=fields, measures_cost=True
    )
