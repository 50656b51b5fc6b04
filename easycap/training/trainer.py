"""How to train: the settings. `fit.py` does it."""

from __future__ import annotations

from easycap.data.loader import TrainLoader
from easycap.registry import register
from easycap.training.hardware import Precision

_OVERFIT_STEPS_PER_EPOCH = 50


@register("trainer", "default")
class Trainer:
    """How to train: epochs over the loader's batches, validation, best and last checkpoints.

    A step uses `accumulate` batches of `batch_size` images (of all ranks together, so that the numbers do not depend
    on how many there are) with `captions_per_image` captions each (null: all). The
    run ends after `epochs`, or after `max_steps` steps if that is set: the schedule is stretched over that length.
    It ends earlier, with the schedule where it then is, after `patience` validations in a row that found nothing
    better; and `max_hours` after its start it saves and stops, to be gone on with by resume=RUN, schedule included.
    `ema` validates and keeps, as best, a moving average of the weights with that decay.
    The encoder is frozen until `unfreeze_encoder_at_epoch` (0: trained from the start; null: never); until then
    `cache_features` lets it run once per image instead of once per epoch. Training alone
    sees, with `crop`, a random part of each image of at least that share of its area, and with `flip` every other
    image mirrored that has no caption with left or right; see Augmented. `overfit_batch`
    trains on one batch over and over, 50 times an epoch: a model that cannot learn it has a bug.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        captions_per_image: int | None,
        epochs: int,
        max_steps: int | None,
        patience: int | None,
        max_hours: float | None,
        accumulate: int,
        clip_norm: float | None,
        ema: float | None,
        precision: Precision,
        compile: bool,
        gradient_checkpointing: bool,
        unfreeze_encoder_at_epoch: int | None,
        cache_features: bool,
        crop: float | None,
        flip: bool,
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
            ("patience", patience),
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
        if cache_features and (unfreeze_encoder_at_epoch == 0 or overfit_batch):
            raise ValueError(
                "trainer.cache_features=true needs an encoder that is frozen at first: set "
                "trainer.unfreeze_encoder_at_epoch to null or an epoch, and trainer.overfit_batch=false"
            )
        if crop is not None and not 0 < crop <= 1:
            raise ValueError(
                f"trainer.crop={crop} must be above 0 and at most 1, the least share of an image's area that is seen, "
                "or null for the whole"
            )
        if (cache_features or overfit_batch) and (flip or crop is not None):
            name = "cache_features" if cache_features else "overfit_batch"
            raise ValueError(
                f"trainer.{name}=true shows every image in one way: set trainer.crop=null and trainer.flip=false, or "
                f"trainer.{name}=false"
            )
        if ema is not None and not 0 < ema < 1:
            raise ValueError(
                f"trainer.ema={ema} must be between 0 and 1, e.g. 0.999, or null for no averaging"
            )
        if max_hours is not None and max_hours <= 0:
            raise ValueError(f"trainer.max_hours={max_hours} must be positive, or null for no limit")
        if workers < 0:
            raise ValueError(f"trainer.workers={workers} must be 0 (load in the main process) or more")
        if clip_norm is not None and clip_norm <= 0:
            raise ValueError(f"trainer.clip_norm={clip_norm} must be positive, or null for no clipping")
        self.batch_size, self.captions_per_image, self.workers = batch_size, captions_per_image, workers
        self.epochs, self.max_steps, self.accumulate = epochs, max_steps, accumulate
        self.patience, self.max_hours = patience, max_hours
        self.ema, self.compile = ema, compile
        self.gradient_checkpointing = gradient_checkpointing
        self.clip_norm, self.precision, self.overfit_batch = clip_norm, precision, overfit_batch
        self.crop, self.flip = crop, flip
        self.unfreeze_encoder_at_epoch, self.cache_features = unfreeze_encoder_at_epoch, cache_features
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
