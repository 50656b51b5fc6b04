"""The training loop, as a list of verbs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import torch
from torch import nn

from easycap.data.loader import TrainLoader
from easycap.registry import register
from easycap.training.checkpoint import load_training, load_weights, newest, save_checkpoint
from easycap.training.hardware import Precision, autocast
from easycap.training.optim import Optimization
from easycap.training.progress import TrainingProgress
from easycap.training.validation import Validation, Validator, warnings_of
from easycap.types import Batch, Objective, Tracker, Vocabulary

logger = logging.getLogger(__name__)

_OVERFIT_STEPS_PER_EPOCH = 50


@register("trainer", "default")
class Trainer:
    """How to train; `Fit` does it: epochs over the loader's batches, validation, best and last checkpoints.

    A step uses `accumulate` batches of `batch_size` images with `captions_per_image` captions each (null: all). The
    run ends after `epochs`, or after `max_steps` steps if that is set; the schedule knows which. The encoder is
    frozen until `unfreeze_encoder_at_epoch` (0: trained from the start; null: never). `overfit_batch` trains on one
    batch over and over, 50 times an epoch: a model that cannot learn it has a bug.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        captions_per_image: int | None,
        epochs: int,
        max_steps: int | None,
        accumulate: int,
        clip_norm: float | None,
        precision: Precision,
        unfreeze_encoder_at_epoch: int | None,
        checkpoint_every_steps: int | None,
        log_every_steps: int,
        workers: int,
        overfit_batch: bool,
    ) -> None:
        for name, count in (
            ("batch_size", batch_size),
            ("captions_per_image", captions_per_image),
            ("epochs", epochs),
            ("max_steps", max_steps),
            ("accumulate", accumulate),
            ("checkpoint_every_steps", checkpoint_every_steps),
            ("log_every_steps", log_every_steps),
        ):
            if count is not None and count < 1:
                raise ValueError(f"trainer.{name}={count} must be at least 1")
        if unfreeze_encoder_at_epoch is not None and unfreeze_encoder_at_epoch < 0:
            raise ValueError(
                f"trainer.unfreeze_encoder_at_epoch={unfreeze_encoder_at_epoch} must be 0 (trained from the start), an "
                "epoch, or null (frozen throughout)"
            )
        if workers < 0:
            raise ValueError(f"trainer.workers={workers} must be 0 (load in the main process) or more")
        if clip_norm is not None and clip_norm <= 0:
            raise ValueError(f"trainer.clip_norm={clip_norm} must be positive, or null for no clipping")
        self.batch_size, self.captions_per_image, self.workers = batch_size, captions_per_image, workers
        self.epochs, self.max_steps, self.accumulate = epochs, max_steps, accumulate
        self.clip_norm, self.precision, self.overfit_batch = clip_norm, precision, overfit_batch
        self.unfreeze_encoder_at_epoch = unfreeze_encoder_at_epoch
        self.checkpoint_every_steps, self.log_every_steps = checkpoint_every_steps, log_every_steps

    def steps_per_epoch(self, loader: TrainLoader) -> int:
        """Return optimiser steps per epoch; a rest smaller than `accumulate` batches is left out."""
        if self.overfit_batch:
            return _OVERFIT_STEPS_PER_EPOCH
        steps = loader.batches_per_epoch // self.accumulate
        if not steps:
            raise ValueError(
                f"trainer.accumulate={self.accumulate} batches of {loader.batch_size} images are more than the "
                f"{loader.sampler.length} training images: lower it or trainer.batch_size"
            )
        return steps

    def total_steps(self, loader: TrainLoader) -> int:
        """Return how many optimiser steps a whole run takes."""
        return self.max_steps or self.epochs * self.steps_per_epoch(loader)


class Fitted:
    """What a training leaves behind besides its files: the best validation metric and the cost."""

    def __init__(self, best: float | None, cost: dict[str, float], warnings: list[str]) -> None:
        self.best, self.cost, self.warnings = best, cost, warnings


class Fit:
    """One run of a Trainer: the moving parts and the state of the run.

    `checkpoints` is the folder for `last` and `best`; `config` is stored beside the weights as plain data.
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
        config: dict[str, Any],
        device: torch.device,
    ) -> None:
        self.trainer, self.captioner, self.objective = trainer, captioner, objective
        self.optimization, self.loader, self.validator = optimization, loader, validator
        self.vocabulary, self.tracker, self.device = vocabulary, tracker, device
        self.checkpoints, self.config = checkpoints, config
        self.step, self.epoch, self.best, self.train_seconds = 0, 0, None, 0.0
        self.images_seen, self.train_loss, self.warnings = 0, float("nan"), []
        self.steps_per_epoch = trainer.steps_per_epoch(loader)
        self.total_steps = trainer.total_steps(loader)

    def autocast(self) -> AbstractContextManager:
        return autocast(self.device, self.trainer.precision)

    def run(self) -> Fitted:
        self.captioner.to(self.device)
        self.resume()
        self.rehearse()
        with TrainingProgress(self.total_steps, self.step) as progress:
            while self.step < self.total_steps:
                self.freeze_or_release_encoder()
                self.train_epoch(progress)
                if self.step in (self.total_steps, self.end_of_epoch):
                    self.validate(progress)
                    self.epoch += 1
                    self.save("last")
        return Fitted(self.best, self.cost(), self.warnings)

    @property
    def end_of_epoch(self) -> int:
        """The step with which the current epoch ends."""
        return (self.epoch + 1) * self.steps_per_epoch

    # -------------------------------------------------------------------------------- before the first step

    def resume(self) -> None:
        """Go on from checkpoints/last where there is one."""
        folder = newest(self.checkpoints / "last")
        if folder is None:
            return
        load_weights(self.captioner, folder)
        progress = load_training(self.optimization, folder)
        self.step, self.epoch, self.best = progress["step"], progress["epoch"], progress["best"]
        self.train_seconds, self.images_seen = progress["train_seconds"], progress["images_seen"]
        self.warnings = progress["warnings"]
        logger.info("resumed from %s at step %d of %d", folder.name, self.step, self.total_steps)

    def rehearse(self) -> None:
        """Run everything validation does on two batches: it must not fail after hours of training."""
        state = torch.get_rng_state()
        self.validator.rehearse(self.captioner, self.device, self.autocast)
        torch.set_rng_state(state)

    # ------------------------------------------------------------------------------------------- training

    def freeze_or_release_encoder(self) -> None:
        start = self.trainer.unfreeze_encoder_at_epoch
        frozen = start is None or self.epoch < start
        if frozen != self.captioner.encoder_frozen:
            logger.info("epoch %d: the encoder is %s", self.epoch + 1, "frozen" if frozen else "trained")
        self.captioner.freeze_encoder(frozen)

    def train_epoch(self, progress: TrainingProgress) -> None:
        self.captioner.train()
        for batches in self.batches_of_epoch():
            started = time.perf_counter()
            values = self.train_step(batches)
            self.train_loss = values["loss"]
            self.train_seconds += time.perf_counter() - started
            self.images_seen += sum(len(batch.ids) for batch in batches)
            self.step += 1
            progress.advance(self.step, values["loss"], self.images_seen / self.train_seconds)
            if self.step % self.trainer.log_every_steps == 0 or self.step == self.total_steps:
                self.log("train", values)
            every = self.trainer.checkpoint_every_steps
            # At an epoch's end the checkpoint waits for the validation, or a kill between them would lose that.
            if every and self.step % every == 0 and self.step < min(self.total_steps, self.end_of_epoch):
                self.save("last")
            if self.step == self.total_steps:
                return

    def batches_of_epoch(self) -> Iterator[list[Batch]]:
        """The groups of `accumulate` batches this epoch still has, one group per step."""
        done = self.step - self.epoch * self.steps_per_epoch
        per_step = self.trainer.accumulate
        batches: Iterable[Batch]
        if self.trainer.overfit_batch:
            batches = repeat(next(self.loader.epoch(0)), (self.steps_per_epoch - done) * per_step)
        else:
            batches = self.loader.epoch(self.epoch, start=done * per_step)
        batches = iter(batches)
        for _ in range(self.steps_per_epoch - done):
            yield list(islice(batches, per_step))

    def train_step(self, batches: list[Batch]) -> dict[str, float]:
        """One optimiser step; each batch counts by its number of words, as if all were one batch."""
        words = [int((batch.targets != self.vocabulary.pad_id).sum()) for batch in batches]
        values: dict[str, float] = {}
        for batch, count in zip(batches, words, strict=True):
            with self.autocast():
                loss, parts = self.objective(self.captioner, batch.to(self.device))
            share = count / sum(words)
            (loss * share).backward()
            for name, value in parts.items():
                values[name] = values.get(name, 0.0) + float(value) * share
        self.check_finite(values["loss"], batches)
        values |= self.clip_gradients(with_parts=(self.step + 1) % self.trainer.log_every_steps == 0)
        values["lr_factor"] = self.optimization.step(self.step)
        return values

    def check_finite(self, loss: float, batches: list[Batch]) -> None:
        if not math.isfinite(loss):
            ids = [image_id for batch in batches for image_id in batch.ids]
            raise ValueError(
                f"the loss is {loss} at step {self.step + 1}; images {', '.join(ids[:8])}{', ...' * (len(ids) > 8)}. "
                "Lower optim.lr, raise schedule.warmup_steps, or set trainer.clip_norm"
            )

    def clip_gradients(self, *, with_parts: bool) -> dict[str, float]:
        """Clip to `clip_norm`; return the norm before, and with `with_parts` that of each part."""
        values = {}
        if with_parts:
            for name, part in self.captioner.named_children():
                grads = [p.grad for p in part.parameters() if p.grad is not None]
                values[f"grad_norm/{name}"] = float(torch.nn.utils.get_total_norm(grads)) if grads else 0.0
        limit = self.trainer.clip_norm or math.inf
        values["grad_norm"] = float(torch.nn.utils.clip_grad_norm_(self.captioner.parameters(), limit))
        return values

    # ------------------------------------------------------------------------------- looking and keeping

    def validate(self, progress: TrainingProgress) -> None:
        last = self.step == self.total_steps
        if not self.validator.is_due(self.epoch, last=last):
            return
        validation = self.validator(self.captioner, self.device, self.autocast)
        self.log("val", validation.values)
        self.tracker.samples(self.validator.sample_rows(validation), step=self.step, epoch=self.epoch + 1)
        value = validation.values[self.validator.metric]
        progress.report(self.epoch + 1, self.train_loss, self.validator.metric, validation.values)
        self.warn(validation)
        if self.best is None or value > self.best:
            self.best = value
            self.save("best")

    def warn(self, validation: Validation) -> None:
        """Log what is suspicious now; the run keeps what still was at its end."""
        found = warnings_of(validation, len(self.validator.examples))
        self.warnings = [f"after epoch {self.epoch + 1}: {sentence}" for sentence in found]
        for sentence in self.warnings:
            logger.warning(sentence)

    def log(self, prefix: str, values: dict[str, float]) -> None:
        named = {f"{prefix}/{name}": value for name, value in values.items()}
        named["epoch"] = self.step / self.steps_per_epoch
        if prefix == "train":
            named["train/images_per_second"] = self.images_seen / self.train_seconds
        self.tracker.log(named, step=self.step)

    def save(self, name: str) -> None:
        save = partial(save_checkpoint, self.checkpoints / name, self.captioner, self.vocabulary, self.config)
        if name == "best":
            save()
            return
        progress = {
            "step": self.step,
            "epoch": self.epoch,
            "best": self.best,
            "train_seconds": self.train_seconds,
            "images_seen": self.images_seen,
            "warnings": self.warnings,
        }
        save(optimization=self.optimization, progress=progress)

    def cost(self) -> dict[str, float]:
        parameters = [p.numel() for p in self.captioner.parameters()]
        trained = [p.numel() for p in self.captioner.parameters() if p.requires_grad]
        return {
            "train_seconds": self.train_seconds,
            "steps": self.step,
            "images_per_second": self.images_seen / self.train_seconds if self.train_seconds else 0.0,
            "total_parameters": sum(parameters),
            "trainable_parameters": sum(trained),
        }
