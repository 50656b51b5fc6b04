"""The order of training images: shuffled per epoch, divided among ranks."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler

WINDOW_ROWS = 1000  # rows, at least, whose images are shuffled among each other where they are streamed


class Blocks(NamedTuple):
    """Which block of a file each of N examples lies in, `of` (N,), and how many rows each block has. A block is what
    can be read at once.
    """

    of: Sequence[int] | np.ndarray
    rows: Sequence[int] | np.ndarray


class EpochSampler(Sampler[int]):
    """The order of an epoch: a permutation drawn from (seed, epoch), in whole batches, from batch `start` on.

    Restarting in the middle of an epoch gives exactly the images that were left. Of each batch, rank `number` of
    `count` gets its equal part, so that a batch has the same images however many ranks there are. With `blocks` each
    block is needed once per epoch: blocks are shuffled, and then images within windows of at least `WINDOW_ROWS` rows.
    """

    def __init__(
        self,
        length: int,
        *,
        seed: int,
        batch_size: int,
        number: int,
        count: int,
        blocks: Blocks | None = None,
    ) -> None:
        self.length, self.seed, self.epoch, self.start = length, seed, 0, 0
        self.batch_size, self.number, self.own = batch_size, number, batch_size // count
        self.blocks = blocks

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(hash_seed(self.seed, self.epoch))
        if self.blocks is None:
            order = torch.randperm(self.length, generator=generator)
        else:
            order = _order_by_blocks(self.blocks, generator)
        batches = order.split(self.batch_size)
        for batch in batches[self.start : self.length // self.batch_size]:
            yield from batch[self.number * self.own : (self.number + 1) * self.own].tolist()

    def __len__(self) -> int:
        return (self.length // self.batch_size - self.start) * self.own


def _order_by_blocks(blocks: Blocks, generator: torch.Generator) -> torch.Tensor:
    """A permutation of all examples (N,) in which those of a block are near each other."""
    of, rows = torch.tensor(blocks.of), torch.tensor(blocks.rows)
    members = torch.argsort(of, stable=True).split(torch.bincount(of, minlength=len(rows)).tolist())
    shuffled = torch.randperm(len(rows), generator=generator)
    # A block is in the window that the rows before it fill up to.
    ends = rows[shuffled].cumsum(0)
    order, window, begun = [], [], 0
    for block, end in zip(shuffled.tolist(), ends.tolist(), strict=True):
        window.append(members[block])
        if end - begun >= WINDOW_ROWS or end == ends[-1]:
            inside = torch.cat(window)
            order.append(inside[torch.randperm(len(inside), generator=generator)])
            window, begun = [], end
    return torch.cat(order)


def hash_seed(*parts: int) -> int:
    """Mix integers into one 63-bit seed, equal on every machine."""
    return random.Random("/".join(map(str, parts))).getrandbits(63)
