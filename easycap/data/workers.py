"""Loader processes: how many for `trainer.workers=auto`, whether shared memory suffices, and the error if they die."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch.utils.data import DataLoader

from easycap.data.images import BadImage, PackedImage
from easycap.data.parquet_images import is_remote
from easycap.errors import UserError
from easycap.types import Example, ImageInput
from easycap.utils.allocator import keep_freed_memory
from easycap.utils.machine import usable_cores
from easycap.utils.processes import STOP_SIGNALS

logger = logging.getLogger(__name__)

AUTO = "auto"
# Loader processes on Linux pass batches through this; it is often only 64 MB in containers.
SHARED_MEMORY = "/dev/shm"
_BATCHES_AHEAD = 2  # of each process: torch's default
_BYTES_OF_TEXT = 2**16  # more than the ids of a batch: each tensor takes whole pages
_SECONDS_FOR_A_BATCH = 600.0
_REMEDY = "give it more (docker run --shm-size=1g), or set trainer.workers=0 or a smaller trainer.batch_size"
_MOST_BESIDE_A_GPU = 8
_MOST_BESIDE_THE_CPU = 2  # computing on an image takes longer than loading it
# Processes are started every epoch: a fork takes hundredths of a second, a new Python with torch several seconds.
_BATCHES_PER_WORKER = {"fork": 2, "forkserver": 50, "spawn": 50}


def loading_workers(
    workers: int | str, examples: Sequence[Example], batch_size: int, *, ranks: int = 1
) -> int:
    """Return `workers`, or for "auto" a number based on the usable cores, which `ranks` share.

    It is 0 (the main process loads) for pixels in one memory-mapped file, and if there are too few batches to make up
    for starting a process. At least one core is left for computing. What is read over the network is loaded by one
    process: each has its own connection and would read all.
    """
    if workers != AUTO:
        return int(workers)
    if not examples or isinstance(examples[0].image, PackedImage):
        return 0
    worth = -(-len(examples) // batch_size) // _BATCHES_PER_WORKER[multiprocessing.get_start_method()]
    most = 1 if is_remote(examples[0]) else max_workers(workers, ranks=ranks)
    return min(most, worth)


def max_workers(workers: int | str, *, ranks: int = 1) -> int:
    """Return the largest number of loader processes, for any kind and number of images."""
    if workers != AUTO:
        return int(workers)
    cores, gpu = usable_cores() // ranks, torch.cuda.is_available()
    return max(0, min(_MOST_BESIDE_A_GPU, cores - 1) if gpu else min(_MOST_BESIDE_THE_CPU, cores // 2))


def workers_with_room(
    workers: int, examples: Sequence[Example], view: ImageInput, batch_size: int, *, given: int | str
) -> int:
    """Return `workers`, or as many as fit into shared memory if the number was not `given` ("auto").

    Without room for its batches, a loader process is killed or waits forever. `batch_size` is that of one process, of
    what `view` has of `examples`. Raises `UserError` if there is no room for a given number.
    """
    if not workers or not examples or is_remote(examples[0]) or not os.path.isdir(SHARED_MEMORY):
        return workers
    size = batch_size * _image_bytes(examples, view) + _BYTES_OF_TEXT
    disk = os.statvfs(SHARED_MEMORY)
    free = disk.f_bavail * disk.f_frsize
    needed = (_BATCHES_AHEAD * workers + 1) * size
    if needed <= free:
        return workers
    has = f"{SHARED_MEMORY} has {free / 1e6:,.0f} MB free, but {workers} loader processes need {needed / 1e6:,.0f} MB"
    if given != AUTO:
        raise UserError(f"{has} there: {_REMEDY}")
    fit = max(0, (free // size - 1) // _BATCHES_AHEAD)
    logger.warning("%s: loading with %d; %s", has, fit, _REMEDY.partition(", or ")[0])
    return fit


def _image_bytes(examples: Sequence[Example], view: ImageInput) -> int:
    """The size of what a model gets of the first image that can be read, 0 if none of some can."""
    for example in examples[:8]:
        with suppress(BadImage):
            return view.of(example).nbytes
    return 0


def data_loader(dataset: Any, *, workers: int, **options: Any) -> DataLoader:
    """Return a DataLoader whose processes are those that `begin_worker` begins; see `loaded_batches`."""
    return DataLoader(
        dataset,
        num_workers=workers,
        worker_init_fn=begin_worker,
        timeout=_SECONDS_FOR_A_BATCH if workers else 0,
        **options,
    )


def loaded_batches(loader: DataLoader) -> Iterator[Any]:
    """Yield what `loader` loads; `UserError` if its processes die or are silent for long. They end with this."""
    batches = iter(loader)
    try:
        yield from batches
    except RuntimeError as error:
        if not str(error).startswith("DataLoader"):  # torch has no class for it
            raise
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"a loader process of trainer.workers={loader.num_workers} died ({why}): if {SHARED_MEMORY} is full, "
            f"{_REMEDY}"
        ) from error
    finally:
        # An error keeps its frames, and with them the iterator, as long as Python exits: that waits for the processes.
        getattr(batches, "_shutdown_workers", lambda: None)()


def begin_worker(_worker: int) -> None:
    """Initialise a loader process; torch gives each one thread."""
    keep_freed_memory()  # processes that are not forked start with the defaults
    gc.freeze()  # what was there before is not looked through for garbage, which would write to all of it
    # Ctrl-C reaches every process of a terminal, and a scheduler's signals all of a job; the main one still needs the
    # batches of this step to save in peace.
    for number in (signal.SIGINT, *STOP_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
