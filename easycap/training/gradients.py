"""Gradients of several ranks, by torch's DistributedDataParallel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from easycap.models.checkpoint import load_weights
from easycap.training.distributed import Ranks
from easycap.types import Batch, Objective

T = TypeVar("T")

# What the objective returns: a scalar, and values to log.
Loss = tuple[torch.Tensor, dict[str, torch.Tensor]]


class ObjectiveModule(nn.Module):
    """The loss of a model as a module, so that DDP and FSDP see all that an objective does with the model.

    An objective may call parts of the model one by one, as self-critical training does.
    """

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, compute: Callable[..., T], *arguments: Any) -> T:
        """Return `compute(*arguments)`, which uses the model."""
        return compute(*arguments)

    def loss(self, batch: Batch) -> Loss:
        """Return the loss of a batch and what to log of it."""
        return self.objective(self.model, batch)


class _WithUnused(nn.Module):
    """A module with a parameter that it never uses.

    Which parameters are used may differ between batches, so DDP has to look; without any it would warn.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.unused = nn.Parameter(torch.zeros((), device=next(module.parameters()).device))

    def forward(self, *arguments: Any) -> Any:
        """Return what the module returns."""
        return self.module(*arguments)


class Gradients:
    """Computes the gradients of an objective; this one on a single rank."""

    is_sharded = False

    def __init__(self, module: ObjectiveModule) -> None:
        self.module = module

    def loss(self, batch: Batch) -> Loss:
        """Return the loss of a batch and what to log of it; `backward` of the loss adds the gradients of all ranks."""
        return self.module.loss(batch)

    def local_loss(self, batch: Batch) -> Loss:
        """Return the loss of a batch in a pass of this rank alone, e.g. to try a batch size."""
        return self.module.loss(batch)

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        """Return the context of a batch's forward and backward pass; the `last` of a step exchanges gradients."""
        return nullcontext()

    def whole_model(self) -> AbstractContextManager[None]:
        """Return a context in which each rank may use the model by itself, without gradients."""
        return nullcontext()

    def reset(self) -> None:
        """Give up a step that failed."""

    def load_weights(self, folder: Path) -> None:
        """Load the weights of a checkpoint."""
        load_weights(self.module.model, folder)

    def weights(self) -> dict[str, torch.Tensor] | None:
        """Return all weights if the model itself has only a part of them, else None."""
        return None


class ReplicatedGradients(Gradients):
    """Every rank has the whole model, at first with the main rank's weights.

    Gradients are averaged while the backward pass runs.
    A parameter that no rank used gets no gradient; one that some used counts as zero on the others.
    """

    def __init__(self, module: ObjectiveModule, ranks: Ranks) -> None:
        super().__init__(module)
        ranks.broadcast_weights(module.model)
        self.ranks = ranks
        self._wrapper: DistributedDataParallel | None = None
        self._trained: list[int] = []

    def loss(self, batch: Batch) -> Loss:
        """Return the loss of this rank's batch."""
        return self._wrapped()(self.module.loss, batch)

    @contextmanager
    def accumulate(self, *, last: bool) -> Iterator[None]:
        """Exchange gradients in the backward pass of the `last` batch only."""
        with self.ranks.together_in_passes(), nullcontext() if last else self._wrapped().no_sync():
            yield

    def reset(self) -> None:
        """Remove the hooks that would exchange gradients."""
        self._wrapper = None

    def _wrapped(self) -> DistributedDataParallel:
        """DDP for the parameters that are trained now: unfreezing the encoder changes them."""
        trained = [id(p) for p in self.module.parameters() if p.requires_grad]
        if self._wrapper is None or trained != self._trained:
            self._wrapper = None  # its hooks go first
            self._wrapper, self._trained = _wrap(self.module), trained
        return self._wrapper


def gradients_of(module: ObjectiveModule, ranks: Ranks, *, shard: bool = False) -> Gradients:
    """Return what computes the gradients of `module`; with `shard` its parameters are divided among ranks."""
    if ranks.world_size == 1:
        return Gradients(module)
    if not shard:
        return ReplicatedGradients(module, ranks)
    from easycap.training.sharding import ShardedGradients

    return ShardedGradients(module, ranks)


def _wrap(module: nn.Module) -> DistributedDataParallel:
    # `Ranks.average_buffers` takes care of buffers
    return DistributedDataParallel(
        _WithUnused(module),
        find_unused_parameters=True,
        gradient_as_bucket_view=True,
        forward_sync_buffers=False,
    )
