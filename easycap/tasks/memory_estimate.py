"""A lower bound on a run's memory, computed from its model on the meta device before any work.

Counted: weights, gradients, the optimiser's moments and averaged weights, the tensors that autograd saves in a
step, the decoder state of a validation batch, and the batches that loaders prefetch. Not counted: temporary
tensors, the allocator's overhead and Python itself. Captions are assumed to be short. So the sum is an
underestimate: a run that it refuses cannot fit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch

from easycap.data.workers import max_workers
from easycap.errors import UserError
from easycap.models.image_model import ImageModel
from easycap.tasks.memory_counts import (
    TYPICAL_WORDS,
    bytes_of,
    generation_memory,
    images_validated,
    saved_of_step,
)
from easycap.training.hardware import pick_device
from easycap.training.optim import hidden_matrices
from easycap.training.place import place
from easycap.training.sharding import blocks_of
from easycap.utils.machine import available_memory

logger = logging.getLogger(__name__)

_PREFETCHED = 2  # batches per loader process
_SAFE = 0.7  # share of the available memory that suggested settings may use, as the sum is an underestimate


@dataclass(frozen=True)
class Need:
    """Bytes by purpose. `step` sums those of a training step, `validation` those of a validation during training.

    With trainer.shard the first four are this rank's part; `gathered` is what a step gathers of the weights of all
    ranks, `validated` what a validation gathers.
    """

    weights: int
    gradients: int
    moments: int
    averages: int
    activations: int
    loading: int
    generation: int
    gathered: int = 0
    validated: int = 0

    @property
    def step(self) -> int:
        """Bytes of a training step."""
        return sum(getattr(self, field.name) for field in fields(self)) - self.generation - self.validated

    @property
    def validation(self) -> int:
        """Bytes of a validation during training."""
        return self.weights + self.moments + self.averages + self.generation + self.validated

    def __str__(self) -> str:
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return ", ".join(f"{name} {_gigabytes(size)}" for name, size in parts.items() if size > 5e7)


def check_memory(
    config: dict[str, Any],
    model: ImageModel,
    build_again: Callable[[dict[str, Any]], ImageModel],
    *,
    available: int | None = None,
) -> None:
    """Raise `UserError`, with the figures and settings that fit, if a checked config's run cannot fit into memory.

    `model` is on the meta device; `build_again` builds such a model from another config. `available` is in bytes;
    None: what this process can allocate on its device.
    """
    device = pick_device(config["device"])
    available = _available(device) if available is None else available
    if available is None:
        return
    need = memory_need(config, model, device)
    where = f"and {_gigabytes(available)} are available on {device}"
    if need.step > available:
        images = _images(config)
        fits = _batch_that_fits(config, model, device, _SAFE * available)
        advice = [] if fits is None else [_as_batch(config, fits, images)]
        advice += _sharded_if_that_fits(config, model, device, _SAFE * available)
        advice += _tokens_that_fit(config, need, build_again, device, _SAFE * available)
        raise UserError(
            f"a training step of {images} images needs at least {_gigabytes(need.step)} of memory ({need}), {where}; "
            + (" or ".join(advice) + " fits" if advice else "choose a smaller model")
        )
    if need.validation > available:
        raise UserError(
            f"a validation of {images_validated(config)} images at a time needs at least "
            f"{_gigabytes(need.validation)} of memory ({need}), {where}; lower validation.batch_size"
        )


def memory_need(
    config: dict[str, Any],
    model: ImageModel,
    device: torch.device,
    *,
    images: int | None = None,
    words: int = TYPICAL_WORDS,
) -> Need:
    """Return the memory that a checked config's run needs, with its `model` on meta, for `images` per batch (None: the
    config's) and captions of `words` words.
    """
    images = images or _images(config)
    unfreeze = config["trainer"]["unfreeze_encoder_at_epoch"]
    model.freeze_encoder(unfreeze is None or (unfreeze > 0 and unfreeze >= config["trainer"]["epochs"]))
    trained = [p for p in model.parameters() if p.requires_grad]
    ranks = place().world_size if config["trainer"]["shard"] else 1
    size = bytes_of(trained) // ranks
    gathered, validated = _gathered(config, model) if ranks > 1 else (0, 0)
    return Need(
        weights=bytes_of([*model.parameters()]) // ranks + bytes_of([*model.buffers()]),
        gradients=size,
        moments=_moments(config["optim"], model) // ranks,
        averages=size if config["trainer"]["ema"] else 0,
        gathered=gathered,
        validated=validated,
        activations=_counted(lambda: saved_of_step(config, model, device, images, words)),
        loading=_loading(config, model, images) if device.type == "cpu" else 0,
        generation=_counted(lambda: generation_memory(config, model)),
    )


def _gathered(config: dict[str, Any], model: ImageModel) -> tuple[int, int]:
    """Bytes of the weights that a step gathers at a time, and of all of them."""
    whole, blocks = (
        bytes_of([*model.parameters()]),
        [bytes_of([*block.parameters()]) for block in blocks_of(model)],
    )
    if config["objective"]["name"] == "xe":
        return whole - sum(blocks) + max(blocks), whole
    return whole, whole


def _loading(config: dict[str, Any], model: ImageModel, images: int) -> int:
    """Bytes of the pixels that loader processes prefetch."""
    pixels, workers = model.encoder.preprocessing, max_workers(config["trainer"]["workers"])
    return _PREFETCHED * workers * images * 3 * pixels.size**2 if pixels else 0


def _counted(count: Callable[[], int]) -> int:
    """Return `count()`, or 0 for a model that cannot run on meta: the sum stays a lower bound."""
    try:
        return count()
    except UserError:
        raise
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        logger.debug("this model's memory is estimated only in part: %s", error)
        return 0


def _moments(optim: dict[str, Any], model: ImageModel) -> int:
    trained = [p for p in model.parameters() if p.requires_grad]
    if optim["name"] == "sgd":
        return bytes_of(trained) if optim["momentum"] else 0
    of_one_moment = {id(p) for p in hidden_matrices(model)} if optim["name"] == "muon" else set()
    return sum((1 if id(p) in of_one_moment else 2) * bytes_of([p]) for p in trained)


# ------------------------------------------------------------------------------------------- what would fit


def _batch_that_fits(
    config: dict[str, Any], model: ImageModel, device: torch.device, limit: float
) -> int | None:
    """The largest batch (of this rank) that fits, in images; None if not even one does."""
    # not measured with one image, which BatchNorm may refuse
    two, three = (memory_need(config, model, device, images=count).step for count in (2, 3))
    fits = 2 + (limit - two) // max(1, three - two)
    return None if fits < 1 else min(_images(config), int(fits))


def _sharded_if_that_fits(
    config: dict[str, Any], model: ImageModel, device: torch.device, limit: float
) -> list[str]:
    """Advice: to divide a language model among the ranks there are, if the whole batch then fits."""
    if place().world_size == 1 or config["decoder"]["name"] != "causal_lm" or config["task"] != "caption":
        return []
    divided = config | {"trainer": config["trainer"] | {"shard": True, "compile": False}}
    return ["trainer.shard=true"] if memory_need(divided, model, device).step <= limit else []


def _as_batch(config: dict[str, Any], fits: int, images: int) -> str:
    ranks = place().world_size
    accumulate = config["trainer"]["accumulate"] * -(-images // fits)
    return f"trainer.batch_size={fits * ranks} trainer.accumulate={accumulate} (same images per step)"


def _tokens_that_fit(
    config: dict[str, Any],
    need: Need,
    build_again: Callable[[dict[str, Any]], ImageModel],
    device: torch.device,
    limit: float,
) -> list[str]:
    """Advice: the largest image_tokens.count found that fits with the whole batch; empty if it is not the cause."""
    count = config["image_tokens"].get("count")
    if not isinstance(count, int):
        return []

    def fits(count: int) -> bool:
        fewer = config | {"image_tokens": config["image_tokens"] | {"count": count}}
        return memory_need(fewer, build_again(fewer), device).step <= limit

    low, high = int(count * limit / need.step), count
    while low and not fits(low):  # not all of the need depends on it
        low //= 4
    if not low:
        return []
    while high > 1.5 * low:
        middle = int((low * high) ** 0.5)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return [f"image_tokens.count={low}"]


# ------------------------------------------------------------------------------------------------- figures


def _available(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return available_memory()


def _images(config: dict[str, Any]) -> int:
    """Images of a batch on this rank; a batch is never larger than the data, where its size is known."""
    most = config["data"].get("train_images") or config["trainer"]["batch_size"]
    return max(1, min(config["trainer"]["batch_size"], most) // place().world_size)


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
