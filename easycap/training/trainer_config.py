"""How to train: the settings; trainer.py does it."""

from __future__ import annotations

from dataclasses import dataclass

from easycap.data.loader import TrainLoader
from easycap.errors import UserError
from easycap.registry import register
from easycap.training.hardware import Precision
from easycap.training.threads import AUTO

_OVERFIT_STEPS_PER_EPOCH = 50
# At least 1 where they are not null.
_COUNTS = (
    *("batch_size", "captions_per_image", "epochs", "max_steps", "patience", "accumulate"),
    *("checkpoint_every_steps", "log_every_steps", "cached_crops"),
)


@register("trainer", "default")
@dataclass(kw_only=True, eq=False)
class TrainerConfig:
    """How to train: epochs over the loader's batches, validation, best and last checkpoints.

    A step uses `accumulate` batches of `batch_size` images (of all ranks together, so that the numbers do not depend
    on how many there are) with `captions_per_image` captions each (null: all). The run ends after `epochs`, or after
    `max_steps` steps if that is set: the schedule is stretched over that length. It ends earlier, wherever the
    schedule then is, after `patience` validations in a row without improvement; and `max_hours` after its start it
    saves and stops, to be resumed by resume=RUN, schedule included. `ema` validates and keeps, as best, a moving
    average of the weights with that decay. `keep_checkpoints` is the number of epochs whose weights are kept besides
    the best and the last. The encoder is frozen until `unfreeze_encoder_at_epoch` (0: trained from the start; null:
    never); `freeze_batchnorm` keeps its BatchNorm statistics from then on, too. While it is frozen, `cache_features`
    (true, false or auto) lets it run once per image instead of once per epoch. In
    training alone, `crop` takes a random part of each image of at least that share of its area, and `flip` mirrors
    every other image, except those with left or right in a caption; see Augmentation. With `cached_crops` a frozen
    encoder sees so many crops of each image, and the whole, over and over; see FixedViews. `overfit_batch` trains on
    one batch over and over, 50 times an epoch: a model that cannot learn it has a bug. `threads` is the number of
    threads on a CPU: auto tries one and all, unless the environment sets it (OMP_NUM_THREADS). `shard` divides the
    weights, gradients and moments of a language model among ranks; with one rank it has no effect.
    """

    batch_size: int
    captions_per_image: int | None
    epochs: int
    max_steps: int | None
    patience: int | None
    max_hours: float | None
    accumulate: int
    clip_norm: float | None
    ema: float | None
    precision: Precision
    compile: bool
    gradient_checkpointing: bool
    shard: bool
    unfreeze_encoder_at_epoch: int | None
    freeze_batchnorm: bool
    cache_features: bool | str
    crop: float | None
    cached_crops: int | None
    flip: bool
    checkpoint_every_steps: int | None
    keep_checkpoints: int
    log_every_steps: int
    workers: int | str
    threads: int | str
    overfit_batch: bool

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_images()
        self._check_limits()

    def _check_counts(self) -> None:
        for name in _COUNTS:
            count = getattr(self, name)
            if count is not None and count < 1:
                raise UserError(f"trainer.{name}={count} must be at least 1")

    def _check_images(self) -> None:
        """How images are seen: a frozen encoder, cached features, crops and flips."""
        release = self.unfreeze_encoder_at_epoch
        if release is not None and release < 0:
            raise UserError(
                f"trainer.unfreeze_encoder_at_epoch={release} must be 0 (trained from the start), "
                "an epoch, or null (frozen throughout)"
            )
        if isinstance(self.cache_features, str) and self.cache_features != AUTO:
            raise UserError(f"trainer.cache_features={self.cache_features} must be auto, true or false")
        if self.cache_features is True and (release == 0 or self.overfit_batch):
            raise UserError(
                "trainer.cache_features=true needs an encoder that is frozen at first: set "
                "trainer.unfreeze_encoder_at_epoch to null or an epoch, and trainer.overfit_batch=false"
            )
        if self.crop is not None and not 0 < self.crop <= 1:
            raise UserError(
                f"trainer.crop={self.crop} must be above 0 and at most 1, the least share of an image's area that is "
                "seen, or null for the whole"
            )
        if self.cache_features is True and self.crop is not None and self.cached_crops is None:
            raise UserError(
                "trainer.cache_features=true cannot cache random crops that are new in every epoch: set "
                "trainer.cached_crops=4 for four of each image, trainer.crop=null, or trainer.cache_features=false"
            )
        self._check_cached_crops()
        if self.overfit_batch and (self.flip or self.crop is not None):
            raise UserError(
                "trainer.overfit_batch=true excludes random crops and flips: set trainer.crop=null and "
                "trainer.flip=false, or trainer.overfit_batch=false"
            )

    def _check_cached_crops(self) -> None:
        if self.cached_crops is None:
            return
        if self.crop is None:
            raise UserError(
                f"trainer.cached_crops={self.cached_crops} needs random crops to cache: set e.g. trainer.crop=0.6, or "
                "trainer.cached_crops=null"
            )
        if self.unfreeze_encoder_at_epoch == 0:
            raise UserError(
                f"trainer.cached_crops={self.cached_crops} needs an encoder that is frozen at first: set "
                "trainer.unfreeze_encoder_at_epoch to null or an epoch, or trainer.cached_crops=null"
            )
        if self.cache_features is False:
            raise UserError(
                f"trainer.cached_crops={self.cached_crops} excludes trainer.cache_features=false: set the latter to "
                "auto, or trainer.cached_crops=null"
            )

    def _check_limits(self) -> None:
        if self.shard and self.compile:
            raise UserError("trainer.shard=true excludes trainer.compile=true: set one of them to false")
        if self.keep_checkpoints < 0:
            raise UserError(f"trainer.keep_checkpoints={self.keep_checkpoints} must be at least 0 (0: none)")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UserError(
                f"trainer.ema={self.ema} must be between 0 and 1, e.g. 0.999, or null for no averaging"
            )
        if self.max_hours is not None and self.max_hours <= 0:
            raise UserError(f"trainer.max_hours={self.max_hours} must be positive, or null for no limit")
        threads = self.threads
        if isinstance(threads, bool) or (threads != AUTO if isinstance(threads, str) else threads < 1):
            raise UserError(f"trainer.threads={threads} must be auto or a whole number of at least 1")
        if isinstance(self.workers, str) and self.workers != AUTO:
            raise UserError(f"trainer.workers={self.workers} must be auto or a whole number")
        if isinstance(self.workers, int) and self.workers < 0:
            raise UserError(f"trainer.workers={self.workers} must be 0 (load in the main process) or more")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise UserError(f"trainer.clip_norm={self.clip_norm} must be positive, or null for no clipping")

    def epochs_of(self, num_images: int) -> int:
        """Return how many epochs a whole run over `num_images` images starts."""
        if self.max_steps is None:
            return self.epochs
        batches = num_images // min(self.batch_size, num_images)
        return -(-self.max_steps // max(1, batches // self.accumulate))

    def steps_per_epoch(self, loader: TrainLoader) -> int:
        """Return optimiser steps per epoch; a rest smaller than `accumulate` batches is left out."""
        if self.overfit_batch:
            return _OVERFIT_STEPS_PER_EPOCH
        steps = loader.batches_per_epoch // self.accumulate
        if not steps:
            raise UserError(
                f"trainer.accumulate={self.accumulate} batches of {loader.batch_size} images are more than the "
                f"{loader.sampler.length} training images: lower it or trainer.batch_size"
            )
        return steps

    def total_steps(self, loader: TrainLoader) -> int:
        """Return how many optimiser steps a whole run takes."""
        return self.max_steps or self.epochs * self.steps_per_epoch(loader)
