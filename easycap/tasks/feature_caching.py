"""Decide whether training uses cached features of a frozen encoder (trainer.cache_features), and fill the caches."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from easycap.data.array_cache import CannotCache
from easycap.data.features import (
    AugmentedFeatures,
    CachedFeatures,
    FeatureCache,
    MirroredFeatures,
    made_by,
)
from easycap.data.fixed_views import FIRST_CROP, MIRRORED, CachedViews, FixedCrop, FixedViews
from easycap.data.transforms import Mirrored, may_flip
from easycap.models.checkpoint import load_weights
from easycap.runs.find import run_of
from easycap.runs.reading import read_result
from easycap.tasks.base import Task
from easycap.training.checkpoint_files import read_progress
from easycap.training.hardware import Precision
from easycap.types import Example, Features, ImageInput
from easycap.utils import paths
from easycap.utils.cpu_threads import FastestThreads, restore_thread_count

logger = logging.getLogger(__name__)

FEATURES_CACHED = "features_cached"  # in result.json: a resumed run does as before
_CPU_BATCH = 32  # images at a time; on a CPU more are no faster, and take more memory
_MOST_OF_FREE_DISK = 0.5  # largest share that `auto` may use


def cached_view(task: Task, resume_from: Path | None, *, more_runs: bool) -> CachedFeatures | None:
    """Fill the caches and return the view that training uses while the encoder is frozen; None without caching.

    `auto` caches if images are seen unchanged more than once (over several epochs, or by further runs of a sweep,
    `more_runs`), if their features are cached already or if trainer.cached_crops is set; and if the features take at
    most half of the free disk. A resumed run does as before. The encoder must be on its device. Raises `UserError` if
    trainer.cache_features is true and caching is impossible.
    """
    trainer = task.trainer_config
    epoch = read_progress(resume_from)["epoch"] if resume_from is not None else 0
    live_from = math.inf if trainer.unfreeze_encoder_at_epoch is None else trainer.unfreeze_encoder_at_epoch
    if trainer.cache_features is False or epoch >= live_from:
        return None
    auto = trainer.cache_features == "auto"
    before = None
    if auto and resume_from is not None:
        before = (read_result(run_of(resume_from)) or {}).get(FEATURES_CACHED)
    if auto and (before is False or not _may_cache(task)):
        return None
    if resume_from is not None:  # the weights are left to the trainer
        load_weights(task.model, resume_from)
    caches = _caches(task)
    epochs = min(trainer.epochs_of(len(task.examples("train"))), live_from)
    try:
        left = sum(len(cache.left()) for cache, _ in caches)
        if auto and left and not before and not _seen_again(task, epochs, more_runs):
            return None
        _fill(task, caches, left, within=_MOST_OF_FREE_DISK if auto else None)
    except (CannotCache, OSError) as error:
        if not auto:
            raise
        logger.warning("features of the frozen encoder are not cached, so it runs in every epoch: %s", error)
        return None
    return CachedFeatures(
        [cache for cache, _ in caches[:2]],
        task.pipeline.transform,
        live_from=trainer.unfreeze_encoder_at_epoch,
        augmented=_augmented(task, [cache for cache, _ in caches[2:]]),
    )


def views_to_encode(task: Task, *, more_runs: bool) -> int | None:
    """Return how many views of images a run would encode before its first step, 0 if their features are cached already;
    None if it would run the encoder in its steps, at least later. `more_runs` is that of `cached_view`.
    """
    trainer = task.trainer_config
    if trainer.cache_features is False or trainer.unfreeze_encoder_at_epoch is not None:
        return None
    auto = trainer.cache_features == "auto"
    if auto and not _may_cache(task):
        return None
    try:
        left = sum(len(cache.left()) for cache, _ in _caches(task))
    except (CannotCache, OSError):
        return None
    epochs = trainer.epochs_of(len(task.examples("train")))
    return None if auto and left and not _seen_again(task, epochs, more_runs) else left


def fixed_views(task: Task) -> FixedViews | None:
    """Return the views that training sees of images with trainer.cached_crops, whether or not they are cached."""
    trainer = task.trainer_config
    if trainer.crop is None or trainer.cached_crops is None:
        return None
    return FixedViews(
        task.pipeline.transform,
        crop=trainer.crop,
        count=trainer.cached_crops,
        flip=trainer.flip,
        seed=task.config["seed"],
        live_from=trainer.unfreeze_encoder_at_epoch,
    )


def _augmented(task: Task, caches: Sequence[FeatureCache]) -> AugmentedFeatures | None:
    """What is seen of training images that are mirrored (first of the caches, with trainer.flip) or cropped."""
    flip = task.trainer_config.flip
    if (views := fixed_views(task)) is not None:
        return CachedViews(views, dict(enumerate(caches, MIRRORED if flip else FIRST_CROP)))
    return MirroredFeatures(caches[0], task.pipeline.transform, seed=task.config["seed"]) if flip else None


def _may_cache(task: Task) -> bool:
    """Whether the encoder sees the same images again, if also mirrored or cropped."""
    trainer = task.trainer_config
    if not task.model.features_can_be_cached or trainer.overfit_batch:
        return False
    if trainer.crop is not None and trainer.cached_crops is None:
        logger.info(
            "the frozen encoder runs in every epoch, because trainer.crop changes its images; "
            "trainer.cached_crops=4 caches four crops of each"
        )
        return False
    return True


def _seen_again(task: Task, epochs: float, more_runs: bool) -> bool:
    return epochs > 1 or more_runs or task.trainer_config.cached_crops is not None


def feature_cache(
    examples: Sequence[Example], encoder: Any, config: dict[str, Any], precision: Precision
) -> FeatureCache:
    """Return the cache of the features that a config's encoder makes of images, whether or not it is filled."""
    maker = made_by(encoder, config["encoder"], precision.name)
    return FeatureCache(paths.cache_dir() / "features", examples, maker)


def _caches(task: Task) -> list[tuple[FeatureCache, ImageInput]]:
    """The caches of training and validation images, with trainer.flip of mirrored training images, and of each of
    trainer.cached_crops; and what each of them holds.
    """
    transform = task.pipeline.transform
    seen, precision = transform.identity(), task.pipeline.precision.name
    maker = made_by(task.model.encoder, task.config["encoder"], precision, *seen)
    validated = task.examples("val")[: task.config["validation"]["images"]]
    train, folder = task.examples("train"), paths.cache_dir()
    caches: list[tuple[FeatureCache, ImageInput]] = [
        (FeatureCache(folder / "features", examples, maker), transform) for examples in (train, validated)
    ]
    if task.trainer_config.flip:
        flipped = [*filter(may_flip, train)]
        caches.append((FeatureCache(folder / "mirrored_features", flipped, maker), Mirrored(transform)))
    if (views := fixed_views(task)) is not None:
        for crop, name in zip(views.crops, views.folders(train), strict=True):
            caches.append((FeatureCache(folder / "cropped_features" / name, train, maker), crop))
    return caches


def _fill(
    task: Task, caches: Sequence[tuple[FeatureCache, ImageInput]], left: int, *, within: float | None
) -> None:
    """Encode the `left` images, if their features take at most the share `within` of the free disk."""
    captioner, device, transform = task.model, task.device, task.pipeline.transform
    folder = caches[0][0].folder
    if not left:
        images = sum(len(cache.examples) for cache, _ in caches)
        logger.info("using cached features of %s images from %s", f"{images:,}", folder)
        return

    @torch.no_grad()
    def encode(images: torch.Tensor) -> Features:
        with task.pipeline.autocast():
            return captioner.encode(images.to(device))

    captioner.freeze_encoder(True)
    captioner.eval()
    if within is not None:
        _check_disk(encode, transform.blank(), folder, left, within)
    captioner.fold_encoder(left)
    encode_faster = FastestThreads(encode, ahead=left, device=device, what="caching features")
    size, workers = task.config["validation"]["batch_size"], task.trainer_config.workers
    if device.type == "cpu":
        size = min(size, _CPU_BATCH)
    with restore_thread_count():
        for cache, view in caches:
            doing = "caching features"
            if isinstance(view, FixedCrop):
                doing += f" of crop {view.number + 1} of {task.trainer_config.cached_crops}"
            cache.encode(encode_faster, view, batch_size=size, workers=workers, progress=doing)
    captioner.freeze_encoder(False)  # as before; training freezes it itself


def _check_disk(
    encode: Callable[[torch.Tensor], Features], image: torch.Tensor, folder: Path, images: int, share: float
) -> None:
    """Raise `CannotCache` if half-precision features of `images` like this one exceed a share of the free disk."""
    patches = encode(image).patches
    needed = 2 * patches.numel() * images
    existing = next(path for path in folder.parents if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > share * free:
        raise CannotCache(
            f"{images:,} images need {needed / 1e9:.1f} GB, more than {share:.0%} of the {free / 1e9:.1f} GB free in "
            f"{existing}; set EASYCAP_CACHE to a larger disk, or force caching with trainer.cache_features=true"
        )


def prepare_conditions(task: Task) -> None:
    """Do the slow work for the conditions of all images to be scored, and find what is missing, before training."""
    for split in ("val", *task.test_splits):
        limit = task.config["validation"]["images"] if split == "val" else None
        task.conditions.prepare(task.examples(split)[:limit], "test")
