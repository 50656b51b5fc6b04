"""Out of memory: what would fit, found by trying."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from easycap.errors import UserError
from easycap.types import Batch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator or the CPU had no memory left; the CPU's allocator has no error type of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def first_images(batch: Batch, count: int) -> Batch:
    """Return the first `count` images of a batch with their captions."""
    kept = batch.rows < count
    return Batch(
        batch.image_ids[:count],
        batch.inputs.first(count),
        batch.input_ids[kept],
        batch.targets[kept],
        batch.rows[kept],
    )


def images_that_fit(attempt: Callable[[Batch], None], batch: Batch) -> int | None:
    """Return how many images of `batch` an `attempt` can take, halving until one succeeds; None if not even one."""
    count = len(batch.image_ids) // 2
    while count:
        free_cache()
        try:
            attempt(first_images(batch, count))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            return count
        count //= 2
    return None


@contextmanager
def validation_must_fit(device: torch.device, whole_model: AbstractContextManager[None]) -> Iterator[None]:
    """Raise `UserError`, saying what to lower, if validation with the `whole_model` runs out of memory."""
    try:
        with whole_model:
            yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"validation does not fit into the memory of {device}: lower validation.batch_size or the number of beams"
        ) from None


def free_cache() -> None:
    """Release the memory that torch caches for later allocations: pieces of it that are too small count as used."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
