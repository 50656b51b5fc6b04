"""The training loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import easycap.training.checkpoint_files as checkpoint
from easycap.data.loader import TrainLoader
from easycap.models.image_model import ImageModel
from easycap.runs.find import checkpoint_of
from easycap.training.checkpoints import Checkpoints
from easycap.training.distributed import Ranks
from easycap.training.epochs import Epochs
from easycap.training.gradients import Gradients, ObjectiveModule, gradients_of
from easycap.training.hardware import checkpoint_gradients, compile_forward
from easycap.training.memory import validation_must_fit
from easycap.training.optim import Optimization
from easycap.training.progress import TrainingProgress
from easycap.training.randomness import random_state, restore_random_state, seed_rank
from easycap.training.step import StepResult, TrainStep
from easycap.training.stop import Stop
from easycap.training.threads import SpeedWatch, choose_training_threads
from easycap.training.train_state import EarlyStopping, TrainResult, TrainState, training_cost
from easycap.training.trainer_config import TrainerConfig
from easycap.training.validation import Validator, warnings_of
from easycap.types import Batch, Objective, Tracker, Vocabulary, has_oracle
from easycap.utils.cpu_threads import Trial, max_threads

logger = logging.getLogger(__name__)


class Trainer:
    """Trains a model; `state` is how far training has come.

    `checkpoints` is the folder for `last` and `best`; `resume_from` the checkpoint to
    resume from (None: start at step 0); `config` is plain data, stored with the weights.
    `gradients` computes those of the model, by default with a whole model on every rank.
    """

    def __init__(
        self,
        settings: TrainerConfig,
        *,
        model: ImageModel,
        objective: Objective,
        optimization: Optimization,
        loader: TrainLoader,
        validator: Validator,
        vocabulary: Vocabulary,
        tracker: Tracker,
        checkpoints: Path,
        resume_from: Path | None,
        config: dict[str, Any],
        device: torch.device,
        ranks: Ranks,
        gradients: Gradients | None = None,
    ) -> None:
        self.gradients = gradients or gradients_of(ObjectiveModule(model, objective), ranks)
        self.settings, self.model, self.objective = settings, model, objective
        self.optimization, self.loader, self.validator = optimization, loader, validator
        self.tracker, self.device, self.ranks = tracker, device, ranks
        self.config, self.resume_from = config, resume_from
        self.checkpoints = Checkpoints(checkpoints, model, vocabulary, config, ranks, self.gradients)
        self.stop = Stop(settings.max_hours)
        self.take_step = TrainStep(
            settings,
            model=model,
            objective=objective,
            optimization=optimization,
            pad_id=vocabulary.pad_id,
            device=device,
            ranks=ranks,
            asked=lambda: self.stop.asked,
            gradients=self.gradients,
        )
        self.state = TrainState(precision=settings.precision.name)
        self.speed = SpeedWatch()
        self.early_stopping = EarlyStopping(validator.metric, settings.patience)
        self.epochs = Epochs(settings, loader)

    def fit(self) -> TrainResult:
        """Train until the last step, or until validation stops improving; return what came of it."""
        self.resume()
        self.freeze_or_release_encoder()
        self.checkpoints.check_space()
        if self.settings.gradient_checkpointing:
            checkpoint_gradients(self.model)
        if self.settings.compile:
            compile_forward(self.model)
        self.choose_threads()
        with validation_must_fit(self.device, self.gradients.whole_model()):
            self.validator.sanity_check()
        bar = TrainingProgress(self.epochs, self.state.step, shown=self.ranks.is_main)
        with self.stop, bar as progress:
            self.validate_initial_weights(progress)
            while not (self.epochs.are_over(self.state) or self.early_stopping.has_run_out(self.state)):
                self.freeze_or_release_encoder()
                self.train_epoch(progress)
                self.validate(progress)
                self.state.end_epoch()
                self.save_last()
                self.save_best()
                self.checkpoints.save_epoch(self.state, self.take_step.average)
            if self.state.best is None:  # the run was over, but `best` was damaged
                self.run_validation(progress, self.state.epoch)
                self.save_best()
        self.ranks.barrier()
        cost = training_cost(self.model, self.state)
        why = self.early_stopping.ended(self.state, self.epochs.total_steps)
        return TrainResult(self.state.best, cost, self.state.warnings, why)

    def resume(self) -> None:
        """Restore the checkpoint `resume_from`, if there is one."""
        if self.resume_from is None:
            seed_rank(self.ranks, self.state.step)
            return
        self.gradients.load_weights(self.resume_from)
        self.state = TrainState.from_progress(checkpoint.read_progress(self.resume_from))
        for _ in range(self.state.stage):
            lr_multiplier = self.objective.next_stage()
            assert lr_multiplier is not None, "a stage that the run had reached"
            self.optimization.restart(lr_multiplier)
        tensors = checkpoint.load_training(self.optimization, self.resume_from)
        restore_random_state(tensors, self.ranks, self.device, self.state.step)
        self.take_step.average.load_state_dict(tensors)
        self.take_step.optimization.load_state_dict(self.state.loss_scale)
        name, total = self.resume_from.name, self.epochs.total_steps
        logger.info("resuming from %s at step %d of %d", name, self.state.step, total)
        self.restore_best()

    def restore_best(self) -> None:
        """Make checkpoints/best agree with `state`: a kill may have come between the two saves of an epoch."""
        if self.checkpoints.step_of_best() == self.state.best_step or self.state.best is None:
            return
        if self.state.best_step == self.state.step:
            self.save_best()
        else:
            logger.warning("checkpoints/best does not match checkpoints/last: the best is chosen again")
            self.state.best = self.state.best_step = None

    def choose_threads(self) -> None:
        """Set the run's number of threads; a new run measures which is faster, without affecting its results."""
        resumed_without = self.resume_from is not None and self.state.threads is None  # it used all threads
        self.state.threads = choose_training_threads(
            self.settings.threads,
            max_threads() if resumed_without else self.state.threads,
            on_cpu=self.device.type == "cpu",
            ranks=self.ranks,
            try_threads=self.try_threads,
        )

    def try_threads(self, candidates: Sequence[int]) -> Trial:
        """Time forward and backward passes over images of the next batch with each number of threads."""
        ahead = self.epochs.images_left(self.state)
        if len(candidates) < 2 or self.settings.compile or self.gradients.is_sharded or not ahead:
            return Trial({})
        self.objective.begin_epoch(self.state.epoch)
        batch = self.loader.first_batch(self.state.epoch)
        return self.take_step.try_threads(batch, candidates, ahead=ahead // self.ranks.world_size)

    def freeze_or_release_encoder(self) -> None:
        """Freeze the encoder before the epoch `unfreeze_encoder_at_epoch`, release it from then on."""
        unfreeze_at = self.settings.unfreeze_encoder_at_epoch
        frozen = unfreeze_at is None or self.state.epoch < unfreeze_at
        if frozen != self.model.encoder_frozen:
            state = "frozen" if frozen else "trained"
            logger.info("epoch %d: the encoder is %s", self.state.epoch + 1, state)
            self.speed.forget()
        self.model.freeze_batchnorm = self.settings.freeze_batchnorm
        self.model.freeze_encoder(frozen)
        # Folding would discard compiled code with the copy that it ran on; a divided encoder has new memory each step.
        if frozen and not self.settings.compile and not self.gradients.is_sharded:
            self.model.fold_encoder(self.epochs.images)

    def train_epoch(self, progress: TrainingProgress) -> None:
        """Take the steps that the current epoch still has."""
        self.model.train()
        self.objective.begin_epoch(self.state.epoch)
        before = time.perf_counter()
        alone = self.ranks.world_size == 1
        for batches in self.stop.awaited(self.epochs.batches(self.state), self.stop_if_asked, alone=alone):
            started = time.perf_counter()
            values, words, asked = self.train_step(batches)
            before, last = time.perf_counter(), before
            images = self.ranks.world_size * sum(len(batch.image_ids) for batch in batches)
            self.state.train_seconds += before - last
            self.state.add(values, words)
            self.state.images_seen += images
            if self.device.type == "cpu":
                self.speed.watch(images, before - started)
            self.state.step += 1
            progress.advance(self.state.step, values["loss"], self.state.images_per_second)
            if self.epochs.log_is_due(self.state):
                self.log("train", values)
            if self.epochs.checkpoint_is_due(self.state):
                self.save_last()
            # Within an epoch, several ranks exchange in each step what they were asked during it.
            if alone or asked or self.state.step == self.epochs.end(self.state):
                self.stop_if_asked()

    def stop_if_asked(self) -> None:
        """Save and end after Ctrl-C or another signal that asks for it, or when `max_hours` are over."""
        asked = self.ranks.all_reduce_max(self.stop.asked)
        if asked:
            self.save_last()
            step, run = f"step {self.state.step} of {self.epochs.total_steps}", self.checkpoints.folder.parent
            self.stop.end(asked, f"at {step}; saved: resume with resume={run}")

    def train_step(self, batches: list[Batch]) -> StepResult:
        """Take one step on its batches."""
        return self.take_step(batches, self.state.step)

    def validate(self, progress: TrainingProgress) -> None:
        """Validate if it is due; save first, so that a kill meanwhile costs the validation only."""
        last = self.state.step == self.epochs.total_steps
        if self.validator.is_due(self.state.epoch, last=last):
            self.save_last()
            self.run_validation(progress, self.state.epoch + 1)

    def validate_initial_weights(self, progress: TrainingProgress) -> None:
        """Validate the weights of init_from: step 0, and the best until one is better."""
        if self.config["init_from"] is not None and self.state.best is None and not self.state.step:
            self.run_validation(progress, 0)
            self.save_best()

    def run_validation(self, progress: TrainingProgress, epoch: int) -> None:
        """Validate after `epoch` epochs, log and show the result, and remember the best."""
        whole = validation_must_fit(self.device, self.gradients.whole_model())
        with self.stop.at_once(), self.take_step.average.applied(), whole:
            validation = self.validator()
        self.log("val", validation.values)
        self.tracker.samples(self.validator.sample_rows(validation), step=self.state.step, epoch=epoch)
        progress.report(
            epoch,
            self.state.epoch_means if epoch else {},
            self.validator.metric,
            validation.values,
            oracle=has_oracle(self.config),
        )
        self.state.stage_start_metrics = self.state.stage_start_metrics or validation.values
        found = warnings_of(validation, self.state, self.validator.metric)
        for sentence in self.state.new_warnings(found, epoch):
            logger.warning(sentence)
        self.early_stopping.compare(self.state, validation.values)
        why = self.early_stopping.ended(self.state, self.epochs.total_steps)
        if why is not None and not self.begin_next_stage():
            logger.info(why)

    def begin_next_stage(self) -> bool:
        """Start the objective's next stage from the best weights, with fresh optimisers; False if it has none."""
        reason, lr_multiplier = self.early_stopping.reason(self.state), self.objective.next_stage()
        if lr_multiplier is None:
            return False
        self.gradients.load_weights(checkpoint_of(self.checkpoints.best))
        self.optimization.restart(lr_multiplier)
        self.take_step.average.averages.clear()
        self.speed.forget()
        self.state.begin_stage()
        logger.info("%s: next stage, from the weights of step %d", reason, self.state.best_step)
        return True

    def log(self, prefix: str, values: dict[str, float]) -> None:
        """Hand values to the tracker, their names after "train/" or "val/"."""
        named = {f"{prefix}/{name}": value for name, value in values.items()}
        named["epoch"] = self.state.step / self.epochs.per_epoch
        if prefix == "train":
            named["train/images_per_second"] = self.state.images_per_second
        self.tracker.log(named, step=self.state.step)
        self.state.logged += 1

    def save_last(self) -> None:
        """Save all that resuming needs."""
        self.state.loss_scale = self.take_step.optimization.state_dict()
        tensors = random_state(self.ranks, self.device) | self.take_step.average.state_dict()
        self.checkpoints.save_last(self.state, self.optimization, tensors)

    def save_best(self) -> None:
        """Save the weights if they are those of the best validation."""
        if self.state.best_step == self.state.step:
            with self.take_step.average.applied():
                self.checkpoints.save_best(self.state)
