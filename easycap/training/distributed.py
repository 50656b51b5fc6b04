"""Several processes (ranks) that train one model: each takes its part of every batch; gradients.py adds them up.

torchrun --nproc-per-node 2 -m easycap train ...        one process per GPU, or on CPUs

Rank 0 makes the run's folder and alone writes to it, so the others must see the same disk. Every method here is
called by all ranks at the same point; with one rank each returns what it was given.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from easycap.errors import UserError
from easycap.training.hardware import local_gpu
from easycap.training.heartbeat import Heartbeat
from easycap.training.place import Place, place
from easycap.training.rendezvous import meet

logger = logging.getLogger(__name__)

# Rank 0 may generate a data set or score for a long time while the others wait; a dead rank is noticed by its missing
# heartbeat.
_TIME_TO_WORK = timedelta(hours=12)


class RankLost(UserError):
    """Another rank is gone."""


class Ranks:
    """One process: its `rank` (from 0) of `world_size`.

    `on_rank_lost` is called with the reason if another process dies.
    """

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self.on_rank_lost: Callable[[str], None] = lambda why: None

    @property
    def is_main(self) -> bool:
        """Whether this process is rank 0, which writes the files."""
        return self.rank == 0

    def shard(self, items: Sequence[Any], batch_size: int) -> list[Any]:
        """Return this rank's items, in whole batches: 0 takes the first batch, 1 the second, and so on."""
        return [
            item for i, item in enumerate(items) if i // batch_size % self.world_size == self.rank
        ]  # the same batches, and so the same padding, as on one rank

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's `value` on every rank."""
        if self.world_size == 1:
            return value
        box = [value]
        with self._together():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def all_gather(self, value: Any) -> list[Any]:
        """Return every rank's `value`, in the order of ranks."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        with self._together():
            dist.all_gather_object(values, value)
        return values

    def all_gather_dict(self, found: dict[str, Any]) -> dict[str, Any]:
        """Return the entries of all ranks."""
        return {key: value for part in self.all_gather(found) for key, value in part.items()}

    def all_reduce_sum(self, values: dict[str, float]) -> dict[str, float]:
        """Return the sums over ranks; all have the same keys."""
        if self.world_size == 1:
            return values
        sums = torch.tensor(list(values.values()), dtype=torch.float64)
        with self._together():
            dist.all_reduce(sums)
        return dict(zip(values, sums.tolist(), strict=True))

    def all_reduce_sum_later(self, value: float) -> Callable[[], float]:
        """Begin to add up `value` over ranks; the function returned waits for the sum."""
        if self.world_size == 1:
            return lambda: value
        total = torch.tensor(value, dtype=torch.float64)
        with self._together():
            work = dist.all_reduce(total, async_op=True)

        def wait() -> float:
            with self._together():
                work.wait()
            return float(total)

        return wait

    def all_reduce_max(self, value: int) -> int:
        """Return the largest `value` of all ranks."""
        if self.world_size == 1:
            return value
        largest = torch.tensor(value)
        with self._together():
            dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest)

    def barrier(self) -> None:
        """Wait for all."""
        if self.world_size > 1:
            self.all_reduce_sum({"here": 1.0})

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Run the block on rank 0 first, then on the others, which find what rank 0 wrote."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def average_buffers(self, module: nn.Module) -> None:
        """Average over ranks what each has measured on its own part of a batch: the statistics of BatchNorm layers in
        training, and the buffers that a module in training names in `averaged_buffers`.
        """
        seen = _statistics(module) if self.world_size > 1 else []
        if seen:
            with self._together():
                _all_reduce(seen)
            for statistics in seen:
                statistics.div_(self.world_size)

    def broadcast_weights(self, module: nn.Module) -> None:
        """Give every rank the weights of rank 0."""
        if self.world_size > 1:
            with self._together():
                for tensor in module.state_dict().values():
                    dist.broadcast(tensor, src=0)

    @contextmanager
    def together_in_passes(self) -> Iterator[None]:
        """Raise `RankLost` if forward and backward passes with collectives fail because a rank is lost."""
        try:
            yield
        except RuntimeError as error:
            if not _is_of_collective(error):
                raise
            raise self._lost(error) from error

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self._lost(error) from error

    def _lost(self, error: RuntimeError) -> RankLost:
        reason = " ".join(str(error).split())[:200]
        return RankLost(
            f"rank {self.rank} of {self.world_size} lost another rank; see that rank's own message ({reason})"
        )


SINGLE_PROCESS = Ranks(0, 1)


@contextmanager
def init_distributed() -> Iterator[Ranks]:
    """Connect to the other ranks, if a launcher started several; if one dies, all others end within a minute."""
    here = place()
    if here.world_size == 1:
        yield SINGLE_PROCESS
        return
    store = meet(here)
    dist.init_process_group(
        _backend(store, here),
        store=dist.PrefixStore("group", store),
        rank=here.rank,
        world_size=here.world_size,
        timeout=_TIME_TO_WORK,
    )
    ranks = Ranks(here.rank, here.world_size)
    with Heartbeat(store, here.rank, here.world_size, lambda why: ranks.on_rank_lost(why)):
        yield ranks
        ranks.barrier()
    dist.destroy_process_group()


def _backend(store: dist.Store, here: Place) -> str:
    """The backend: gloo, and NCCL between GPUs, for which each rank must have a GPU of its own."""
    store.set(f"gpu/{here.rank}", _own_gpu(here))
    gpus = [store.get(f"gpu/{rank}").decode() for rank in range(here.world_size)]
    if not all(gpus):
        return "gloo"
    if len(set(gpus)) < len(gpus):
        if here.rank == 0:
            logger.warning(
                "%d processes share %d GPU(s): gradients go through the CPU", len(gpus), len(set(gpus))
            )
        return "gloo"
    return "cpu:gloo,cuda:nccl"


def _own_gpu(here: Place) -> str:
    """Make this rank's GPU its default and return a text that identifies it; empty without a GPU."""
    if not torch.cuda.is_available():
        return ""
    torch.cuda.set_device(local_gpu(here))
    return f"{socket.gethostname()} {torch.cuda.get_device_properties(local_gpu(here)).uuid}"


def _is_of_collective(error: RuntimeError) -> bool:
    """Whether NCCL or Gloo raised it; Gloo has no error type of its own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def _statistics(module: nn.Module) -> list[torch.Tensor]:
    return [part.get_buffer(name) for part in module.modules() if part.training for name in _measured(part)]


def _measured(part: nn.Module) -> Sequence[str]:
    if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.track_running_stats:
        return ("running_mean", "running_var")
    return getattr(part, "averaged_buffers", ())


def _all_reduce(tensors: list[torch.Tensor]) -> None:
    """Add up tensors of one type over ranks, in place, in one message."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, piece in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(piece.view_as(tensor))
