"""The number of loader processes for `trainer.workers=auto`."""

from __future__ import annotations

import gc
import multiprocessing
import signal
from collections.abc import Sequence

import torch

from easycap.data.images import PackedImage
from easycap.data.parquet_images import is_remote
from easycap.types import Example
from easycap.utils.allocator import keep_freed_memory
from easycap.utils.machine import usable_cores
from easycap.utils.processes import STOP_SIGNALS

AUTO = "auto"
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


def begin_worker(_worker: int) -> None:
    """Initialise a loader process; torch gives each one thread."""
    keep_freed_memory()  # processes that are not forked start with the defaults
    gc.freeze()  # what was there before is not looked through for garbage, which would write to all of it
    # Ctrl-C reaches every process of a terminal, and a scheduler's signals all of a job; the main one still needs the
    # batches of this step to save in peace.
    for number in (signal.SIGINT, *STOP_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
