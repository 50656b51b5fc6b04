"""The training loop, as a list of verbs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import torch
from torch import nn

import easycap.training.checkpoint as checkpoint
from easycap.data.loader import TrainLoader
from easycap.training.hardware import autocast, checkpoint_gradients, compile_forward
from easycap.training.memory import validation_must_fit
from easycap.training.optim import Optimization
from easycap.training.progress import TrainingProgress
from easycap.training.randomness import random_state, restore_random_state, seed_rank
from easycap.training.ranks import Ranks
from easycap.training.step import TrainStep
from easycap.training.stop import OutOfTime, Stop
from easycap.training.trainer import Trainer
from easycap.training.validation import Validation, Validator, warnings_of
from easycap.types import Batch, Objective, Tracker, Vocabulary, has_oracle

logger = logging.getLogger(__name__)


@dataclass
class Reached:
    """How far a run has come: all of its state that is not a tensor.

    `best` is the best validation so far, found after step `best_step`, and `values_of_best` all it measured; `stale`
    counts validations since; `first` is what the weights that this `stage` (from 0) began with measured, without such
    a validation what its first one did; `logged` counts what was handed to the tracker.
    """

    step: int = 0
    epoch: int = 0
    best: float | None = None
    best_step: int | None = None
    values_of_best: dict[str, float] = field(default_factory=dict)
    stale: int = 0
    stage: int = 0
    first: dict[str, float] = field(default_factory=dict)
    train_seconds: float = 0.0
    images_seen: int = 0
    logged: int = 0
    loss_scale: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Fitted:
    """What a training leaves behind besides its files: the best validation, the cost, why it ended early if so."""

    best: float | None
    cost: dict[str, float]
    warnings: list[str]
    ended_early: str | None


class Fit:
    """One run of a Trainer: the moving parts and how far they have come.

    `checkpoints` is the folder for `last` and `best`, `start` the checkpoint to go on from (None: from the
    beginning); `config` is stored beside the weights as plain data.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        captioner: nn.Module,
        objective: Objective,
        optimization: Optimization,
        loader: TrainLoader,
        validator: Validator,
        vocabulary: Vocabulary,
        tracker: Tracker,
        checkpoints: Path,
        start: Path | None,
        config: dict[str, Any],
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self.trainer, self.captioner, self.objective = trainer, captioner, objective
        self.optimization, self.loader, self.validator = optimization, loader, validator
        self.vocabulary, self.tracker, self.device = vocabulary, tracker, device
        self.checkpoints, self.start, self.config, self.ranks = checkpoints, start, config, ranks
        self.take_step = TrainStep(
            trainer,
            captioner=captioner,
            objective=objective,
            optimization=optimization,
            pad_id=vocabulary.pad_id,
            device=device,
            ranks=ranks,
        )
        self.reached = Reached()
        self.stop = Stop(trainer.max_hours)
        self.trained = {"loss": float("nan")}  # what the last step here logged
        self.steps_per_epoch = trainer.steps_per_epoch(loader)
        self.total_steps = trainer.total_steps(loader)

    def autocast(self) -> AbstractContextManager:
        return autocast(self.device, self.trainer.precision)

    def run(self) -> Fitted:
        self.captioner.to(self.device)
        self.resume()
        self.check_space()
        self.save_memory_and_time()
        self.rehearse()
        bar = TrainingProgress(self.total_steps, self.reached.step, shown=self.ranks.first)
        with self.stop, bar as progress:
            self.validate_start(progress)
            while not self.finished:
                self.freeze_or_release_encoder()
                self.train_epoch(progress)
                self.validate(progress)
                self.reached.epoch += 1
                self.save_last()
                self.save_best()
        self.ranks.meet()
        return Fitted(self.reached.best, self.cost(), self.reached.warnings, self.ended_early())

    @property
    def end_of_epoch(self) -> int:
        """The step with which the current epoch ends."""
        return min((self.reached.epoch + 1) * self.steps_per_epoch, self.total_steps)

    @property
    def finished(self) -> bool:
        done = self.reached.epoch * self.steps_per_epoch >= self.total_steps
        return done or self.ended_early() is not None

    def ended_early(self) -> str | None:
        """Return why no further epoch is worth it, if so."""
        if self.trainer.patience is None or self.reached.stale < self.trainer.patience:
            return None
        return (
            f"{self.validator.metric} has not improved in {self.reached.stale} validations (trainer.patience): ended "
            f"after step {self.reached.step} of {self.total_steps}"
        )

    # -------------------------------------------------------------------------------- before the first step

    def resume(self) -> None:
        """Go on from the checkpoint `start`, if there is one."""
        if self.start is None:
            self.ranks.share_weights(self.captioner)
            seed_rank(self.ranks, self.reached.step)
            return
        checkpoint.load_weights(self.captioner, self.start)
        self.reached = Reached(**checkpoint.read_progress(self.start))
        for _ in range(self.reached.stage):
            self.optimization.restart(self.objective.next_stage())
        tensors = checkpoint.load_training(self.optimization, self.start)
        restore_random_state(tensors, self.ranks, self.device, self.reached.step)
        self.take_step.average.load_state_dict(tensors)
        self.take_step.optimization.load_state_dict(self.reached.loss_scale)
        logger.info("going on from %s at step %d of %d", self.start.name, self.reached.step, self.total_steps)
        self.restore_best()

    def restore_best(self) -> None:
        """Make checkpoints/best what `reached` says: a kill may have come between the two saves of an epoch."""
        on_disk = self.ranks.share(checkpoint.read_progress(self.checkpoints / "best")) or {}
        if on_disk.get("step") == self.reached.best_step or self.reached.best is None:
            return
        if self.reached.best_step == self.reached.step:
            self.save_best()
        else:
            logger.warning("checkpoints/best is not of this history: looking for the best anew")
            self.reached.best = self.reached.best_step = None

    def check_space(self) -> None:
        """At most three checkpoints of `last` and two of `best` are on the disk at a time."""
        self.freeze_or_release_encoder()
        if not self.ranks.first:
            return
        whole, weights = (checkpoint.checkpoint_bytes(self.captioner, wanted) for wanted in (True, False))
        there = sum(path.stat().st_size for path in self.checkpoints.rglob("*") if path.is_file())
        checkpoint.check_space(self.checkpoints, 3 * whole + 2 * weights - there)

    def save_memory_and_time(self) -> None:
        if self.trainer.gradient_checkpointing:
            checkpoint_gradients(self.captioner)
        if self.trainer.compile:
            compile_forward(self.captioner)

    def rehearse(self) -> None:
        """Run everything validation does on two batches: it must not fail after hours of training."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), validation_must_fit(self.device):
            self.validator.rehearse(self.captioner, self.device, self.autocast)

    # ------------------------------------------------------------------------------------------- training

    def freeze_or_release_encoder(self) -> None:
        start = self.trainer.unfreeze_encoder_at_epoch
        frozen = start is None or self.reached.epoch < start
        if frozen != self.captioner.encoder_frozen:
            logger.info(
                "epoch %d: the encoder is %s", self.reached.epoch + 1, "frozen" if frozen else "trained"
            )
        self.captioner.freeze_encoder(frozen)

    def train_epoch(self, progress: TrainingProgress) -> None:
        self.captioner.train()
        self.objective.begin_epoch(self.reached.epoch)
        for batches in self.batches_of_epoch():
            started = time.perf_counter()
            self.trained = values = self.train_step(batches)
            self.reached.train_seconds += time.perf_counter() - started
            self.reached.images_seen += self.ranks.count * sum(len(batch.ids) for batch in batches)
            self.reached.step += 1
            progress.advance(self.reached.step, values["loss"], self.images_per_second)
            if self.is_every(self.trainer.log_every_steps) or self.reached.step == self.total_steps:
                self.log("train", values)
            if self.is_every(self.trainer.checkpoint_every_steps) and self.reached.step < self.end_of_epoch:
                self.save_last()
            self.stop_if_asked()

    def is_every(self, steps: int | None) -> bool:
        return steps is not None and self.reached.step % steps == 0

    @property
    def images_per_second(self) -> float:
        return self.reached.images_seen / self.reached.train_seconds if self.reached.train_seconds else 0.0

    def stop_if_asked(self) -> None:
        """Save and end if somebody pressed Ctrl-C, sent SIGTERM, or gave no more hours than these."""
        asked = self.ranks.largest(self.stop.asked)
        if not asked:
            return
        self.save_last()
        if asked == self.stop.INTERRUPTED:
            raise KeyboardInterrupt
        raise OutOfTime(
            f"trainer.max_hours={self.stop.max_hours:g} are over at step {self.reached.step} of {self.total_steps}; "
            f"saved: go on with resume={self.checkpoints.parent}"
        )

    def batches_of_epoch(self) -> Iterator[list[Batch]]:
        """The groups of `accumulate` batches this epoch still has, one group per step."""
        steps = self.end_of_epoch - self.reached.step
        done = self.reached.step - self.reached.epoch * self.steps_per_epoch
        per_step = self.trainer.accumulate
        batches: Iterable[Batch]
        if self.trainer.overfit_batch:
            batches = repeat(next(self.loader.epoch(0)), steps * per_step)
        else:
            batches = self.loader.epoch(self.reached.epoch, start=done * per_step)
        batches = iter(batches)
        for _ in range(steps):
            yield list(islice(batches, per_step))

    def train_step(self, batches: list[Batch]) -> dict[str, float]:
        return self.take_step(batches, self.reached.step)

    # ------------------------------------------------------------------------------- looking and keeping

    def validate(self, progress: TrainingProgress) -> None:
        """Validate if it is due; saved first, so that a kill meanwhile costs the validation only."""
        last = self.reached.step == self.total_steps
        if not self.validator.is_due(self.reached.epoch, last=last):
            return
        self.save_last()
        self.look(progress, self.reached.epoch + 1)

    def validate_start(self, progress: TrainingProgress) -> None:
        """Validate the weights of another run that this one begins with: step 0, and the best until one is better."""
        if self.config["init_from"] is not None and self.reached.best is None and not self.reached.step:
            self.look(progress, 0)
            self.save_best()

    def look(self, progress: TrainingProgress, epoch: int) -> None:
        """Validate after so many epochs, log and show what is found, and remember the best."""
        with (
            self.stop.at_once(),
            self.take_step.average.applied(),
            validation_must_fit(self.device),
        ):
            validation = self.validator(self.captioner, self.device, self.autocast)
        self.log("val", validation.values)
        self.tracker.samples(self.validator.sample_rows(validation), step=self.reached.step, epoch=epoch)
        progress.report(
            epoch, self.trained, self.validator.metric, validation.values, oracle=has_oracle(self.config)
        )
        self.reached.first = self.reached.first or validation.values
        self.warn(validation, epoch)
        self.compare_with_best(validation.values)

    def compare_with_best(self, values: dict[str, float]) -> None:
        value = values[self.validator.metric]
        if self.reached.best is None or value > self.reached.best:
            self.reached.best, self.reached.best_step, self.reached.stale = value, self.reached.step, 0
            self.reached.values_of_best = values
        else:
            self.reached.stale += 1
        if (why := self.ended_early()) is not None and not self.begin_next_stage():
            logger.info(why)

    def begin_next_stage(self) -> bool:
        """Go on with the objective's next stage from the best weights, with fresh optimisers; False if it has none."""
        factor = self.objective.next_stage()
        if factor is None:
            return False
        checkpoint.load_weights(self.captioner, self.checkpoints / "best")
        self.optimization.restart(factor)
        self.take_step.average.averages.clear()
        self.reached.stage, self.reached.stale = self.reached.stage + 1, 0
        self.reached.first = self.reached.values_of_best
        logger.info(
            "%s has not improved in %d validations (trainer.patience): next stage, from the weights of step %d",
            self.validator.metric,
            self.trainer.patience,
            self.reached.best_step,
        )
        return True

    def warn(self, validation: Validation, epoch: int) -> None:
        """Log what is suspicious now; the run keeps what still was at its end."""
        found = warnings_of(validation, self.reached.first, self.validator.metric)
        self.reached.warnings = [f"after epoch {epoch}: {sentence}" for sentence in found]
        for sentence in self.reached.warnings:
            logger.warning(sentence)

    def log(self, prefix: str, values: dict[str, float]) -> None:
        named = {f"{prefix}/{name}": value for name, value in values.items()}
        named["epoch"] = self.reached.step / self.steps_per_epoch
        if prefix == "train":
            named["train/images_per_second"] = self.images_per_second
        self.tracker.log(named, step=self.reached.step)
        self.reached.logged += 1

    def save_last(self) -> None:
        """Save what going on bit for bit needs."""
        self.reached.loss_scale = self.take_step.optimization.state_dict()
        tensors = random_state(self.ranks, self.device) | self.take_step.average.state_dict()
        self.save("last", optimization=self.optimization, tensors=tensors)

    def save_best(self) -> None:
        """Save the weights if they are those of the best validation."""
        if self.reached.best_step == self.reached.step:
            with self.take_step.average.applied():
                self.save("best")

    def save(self, name: str, **training: Any) -> None:
        if self.ranks.first:
            folder, progress = self.checkpoints / name, asdict(self.reached)
            checkpoint.save_checkpoint(
                folder, self.captioner, self.vocabulary, self.config, progress=progress, **training
            )

    def cost(self) -> dict[str, float]:
        parameters = [p.numel() for p in self.captioner.parameters()]
        trained = [p.numel() for p in self.captioner.parameters() if p.requires_grad]
        return {
            "train_seconds": self.reached.train_seconds,
            "steps": self.reached.step,
            "images_per_second": self.images_per_second,
            "total_parameters": sum(parameters),
            "trainable_parameters": sum(trained),
        }
