"""Which task a config or a checkpoint is of: the one place that knows the kinds of tasks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from easycap.errors import UserError
from easycap.metrics.scoring import DEFAULT_SCORERS, metrics_of, training_metrics
from easycap.metrics.tag_scores import METRICS as TAG_METRICS
from easycap.registry import describe_choices
from easycap.tasks.base import NO_DATA, Task
from easycap.tasks.captioning import CaptioningTask
from easycap.tasks.image_text_task import ImageTextTask
from easycap.tasks.initial_weights import checkpoint_config
from easycap.tasks.tagging import TaggingTask
from easycap.types import Dataset

logger = logging.getLogger(__name__)

_TASKS: dict[str, type[Task]] = {"caption": CaptioningTask, "tags": TaggingTask}
_WHOLE_CAPTIONERS: dict[str, type[CaptioningTask]] = {"huggingface": ImageTextTask}


def task_class(config: Mapping[str, Any]) -> type[Task]:
    """Return the class of a checked config's task."""
    task_cls = _TASKS[config["task"]]
    if task_cls is CaptioningTask:
        return _WHOLE_CAPTIONERS.get(config["captioner"]["name"], task_cls)
    return task_cls


def check_metrics(config: dict[str, Any], data: Dataset | None = None) -> None:
    """Raise `UserError` for a metric in a config that is not measured, on `data` or (None) on any data."""
    allowed: set[str] | None = set(TAG_METRICS)
    if issubclass(task_class(config), CaptioningTask):
        allowed = metrics_of((*DEFAULT_SCORERS, *data.scorers)) if data else training_metrics()
    for written, name in _metrics_in(config):
        if allowed is not None and name not in allowed:
            raise UserError(f"{written} is not measured; {describe_choices(name, allowed)}")


def _metrics_in(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The metrics that a config names, each after the setting as the user wrote it."""
    if (metric := config["validation"]["metric"]) is not None:
        yield f"validation.metric={metric!r}", metric
    if issubclass(task_class(config), CaptioningTask):
        rewards = config["objective"].get("rewards") or {}
        yield from ((f"objective.rewards: {name!r}", name) for name, weight in rewards.items() if weight)


def load_task(
    checkpoint: Path,
    *,
    device: str,
    locations: Mapping[str, str] | None = None,
    with_data: bool = False,
    data_may_be_missing: bool = False,
) -> Task:
    """Return the task of a checkpoint with its weights, `with_data` to evaluate it on.

    `locations` {data.root or the like: path} says where data lies now. With
    `data_may_be_missing` a task whose data cannot be read has none, and a warning says so.
    """
    config = checkpoint_config(checkpoint, device=device, locations=locations)
    task_cls = task_class(config)
    try:
        data = task_cls.read_data(config, checkpoint) if with_data else None
    except UserError as error:
        if not data_may_be_missing:
            raise
        logger.warning("no baselines and no share of novel captions: of the run's own data, %s", error)
        data = None
    return task_cls.from_checkpoint(config, checkpoint, data)


def load_pretrained(config: dict[str, Any], data: Dataset = NO_DATA) -> CaptioningTask:
    """Return the task of a pretrained captioner, as the config of hf:NAME describes it, with the `data` to score it on.

    Raises `UserError` if the model cannot be loaded or does not caption.
    """
    return ImageTextTask.of_pretrained(config, data)
