"""A task in training: its trainer, what is logged before it, and result.json after it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from easycap.config.instantiate import build
from easycap.config.schema import config_hash, to_plain
from easycap.data.features import CachedFeatures, WholeImages
from easycap.data.loader import TrainLoader
from easycap.data.transforms import Augmentation
from easycap.data.workers import AUTO
from easycap.runs.environment import environment
from easycap.tasks.base import Summary, Task
from easycap.tasks.feature_caching import fixed_views
from easycap.training.gradients import ObjectiveModule, gradients_of
from easycap.training.optim import Optimization
from easycap.training.train_state import TrainResult
from easycap.training.trainer import Trainer
from easycap.training.validation import Validator
from easycap.types import ImageInput, Objective, Tracker

logger = logging.getLogger(__name__)


def make_trainer(
    task: Task,
    features: CachedFeatures | None,
    *,
    tracker: Tracker,
    checkpoints: Path,
    resume_from: Path | None = None,
) -> Trainer:
    """Return the trainer of a task, with a loader of cached `features` or else of images.

    It begins with step 0, or resumes from the checkpoint `resume_from`.
    """
    objective, loader = task.objective(), training_loader(task, features)
    # before the optimisers: dividing a model replaces its parameters
    gradients = gradients_of(
        ObjectiveModule(task.model, objective), task.ranks, shard=task.trainer_config.shard
    )
    return Trainer(
        task.trainer_config,
        model=task.model,
        objective=objective,
        optimization=optimization(task, task.trainer_config.total_steps(loader)),
        loader=loader,
        validator=_validator(task, objective, features),
        vocabulary=task.vocabulary,
        tracker=tracker,
        checkpoints=checkpoints,
        resume_from=resume_from,
        config=to_plain(task.config),
        device=task.device,
        ranks=task.ranks,
        gradients=gradients,
    )


def training_loader(task: Task, features: CachedFeatures | None = None) -> TrainLoader:
    """Return the loader of training batches, of cached `features` or else of images, augmented as configured."""
    trainer, examples = task.trainer_config, task.examples("train")
    task.conditions.prepare(examples, "train")
    # Copying cached features needs no processes.
    only_copies = features is not None and features.live_from is None
    return TrainLoader(
        examples,
        features or _augmented_view(task),
        task.vocabulary,
        task.conditions,
        batch_size=trainer.batch_size,
        captions_per_image=trainer.captions_per_image,
        max_length=task.pipeline.max_length,
        workers=0 if only_copies and trainer.workers == AUTO else trainer.workers,
        seed=task.config["seed"],
        ranks=(task.ranks.rank, task.ranks.world_size),
    )


def _augmented_view(task: Task) -> ImageInput:
    crop, flip = task.trainer_config.crop, task.trainer_config.flip
    if (views := fixed_views(task)) is not None:
        return views
    if crop is None and not flip:
        return task.pipeline.view
    return Augmentation(task.pipeline.transform, crop=crop, flip=flip, seed=task.config["seed"])


def optimization(task: Task, total_steps: int) -> Optimization:
    """Return fresh optimisers of the model's parameters, with their schedule."""
    lr_multiplier = build("schedule", task.config["schedule"], total_steps=total_steps)
    return build("optim", task.config["optim"])(task.model, lr_multiplier)


def _validator(task: Task, objective: Objective, features: CachedFeatures | None) -> Validator:
    """The validation on the val split, of cached `features` or else of images."""
    pipeline = task.pipeline
    view = pipeline.view if features is None else WholeImages(features)
    return Validator(
        build("validation", task.config["validation"]),
        examples=task.examples("val"),
        make_batches=replace(pipeline, view=view).batches,
        model=task.model,
        objective=objective,
        pad_id=task.vocabulary.pad_id,
        predict=task.predict_batches,
        score=task.score_predictions,
        as_text=task.as_text,
        default_metric=task.default_metric,
        doing=task.doing,
        device=task.device,
        autocast=pipeline.autocast,
        ranks=task.ranks,
    )


def log_start(task: Task, total_steps: int, *, resumed: bool) -> Summary:
    """Log what is about to be trained, and what is doubtful about it; return the task's summary."""
    for level, text in task.preflight_warnings(resumed=resumed):
        logger.log(level, "%s", text)
    summary = task.summary()
    logger.info(
        "%d training images, %s, %.1f million parameters, %d steps on %s",
        len(task.examples("train")),
        summary.text,
        sum(p.numel() for p in task.model.parameters()) / 1e6,
        total_steps,
        task.device,
    )
    for level, text in task.data_warnings():
        logger.log(level, "%s", text)
    return summary


def training_record(
    task: Task, result: TrainResult, summary: Summary, objective: Objective
) -> dict[str, Any]:
    """Return what result.json gets of a training that has ended."""
    return {
        "cost": result.cost,
        "warnings": result.warnings,
        "ended_early": result.ended_early,
        "vocabulary": summary.result,
        "objective": objective.signature,
        "config_hash": config_hash(task.config),
        "seed": task.config["seed"],
        "environment": environment(task.device) | {"ranks": task.ranks.world_size},
    }
