"""Which batches make up a step, and which steps an epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, repeat

from easycap.data.loader import TrainLoader
from easycap.training.train_state import TrainState
from easycap.training.trainer_config import TrainerConfig
from easycap.types import Batch


class Epochs:
    """The steps of a training: `per_epoch` of them in an epoch, `total_steps` in the whole run."""

    def __init__(self, settings: TrainerConfig, loader: TrainLoader) -> None:
        self.settings, self.loader = settings, loader
        self.per_epoch = settings.steps_per_epoch(loader)
        self.total_steps = settings.total_steps(loader)

    @property
    def images(self) -> int:
        """Images that an epoch of the encoder sees, over all ranks."""
        return self.per_epoch * self.loader.batch_size

    def end(self, state: TrainState) -> int:
        """Return the step with which the current epoch ends."""
        return min((state.epoch + 1) * self.per_epoch, self.total_steps)

    def are_over(self, state: TrainState) -> bool:
        """Whether no epoch is left to begin."""
        return state.epoch * self.per_epoch >= self.total_steps

    def images_left(self, state: TrainState) -> int:
        """Return how many images the run still trains on, over all ranks."""
        return (self.total_steps - state.step) * self.settings.accumulate * self.loader.batch_size

    def log_is_due(self, state: TrainState) -> bool:
        """Whether to log after this step; always after the last."""
        return state.step % self.settings.log_every_steps == 0 or state.step == self.total_steps

    def checkpoint_is_due(self, state: TrainState) -> bool:
        """Whether to save within an epoch; at its end the run is saved anyway."""
        every = self.settings.checkpoint_every_steps
        return every is not None and state.step % every == 0 and state.step < self.end(state)

    def batches(self, state: TrainState) -> Iterator[list[Batch]]:
        """Yield the groups of `accumulate` batches that the epoch still has, one group per step."""
        steps, per_step = self.end(state) - state.step, self.settings.accumulate
        batches: Iterable[Batch]
        if self.settings.overfit_batch:
            batches = repeat(next(self.loader.epoch(0)), steps * per_step)
        else:
            done = state.step - state.epoch * self.per_epoch
            batches = self.loader.epoch(state.epoch, start=done * per_step)
        batches = iter(batches)
        for _ in range(steps):
            yield list(islice(batches, per_step))
