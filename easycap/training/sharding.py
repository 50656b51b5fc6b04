"""Models that do not fit: weights, gradients and moments divided among ranks by torch's FSDP2.

Each rank has some rows of every parameter. A block of the language model is gathered while it computes, everything
outside blocks for a whole pass. Validation and the sampling of self-critical training gather the whole model: there
each rank generates as many words as its own captions have, so ranks could not wait for each other's blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from easycap.errors import UserError
from easycap.models.checkpoint import check_weights
from easycap.models.stored_weights import read_weights
from easycap.training.distributed import Ranks
from easycap.training.gradients import Gradients, Loss, ObjectiveModule
from easycap.training.parts import gathered, part_like
from easycap.types import Batch
from easycap.utils.allocator import return_freed_memory


class ShardedGradients(Gradients):
    """Gradients of a model that is divided among ranks; its parameters become torch's DTensors.

    Every rank must use the same parameters in a step, as language models do.
    """

    is_sharded = True

    def __init__(self, module: ObjectiveModule, ranks: Ranks) -> None:
        super().__init__(module)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.ranks = ranks
        ranks.broadcast_weights(module.model)
        device = next(module.parameters()).device.type
        if device == "cpu":
            return_freed_memory()
        mesh = init_device_mesh(device, (ranks.world_size,))
        self.blocks: list[Any] = [fully_shard(block, mesh=mesh) for block in blocks_of(module.model)]
        self.root: Any = fully_shard(module, mesh=mesh)
        # In a fixed order: by default torch follows the order of forward passes, and validation's passes are among
        # them.
        for block, before in zip(
            [self.root, *reversed(self.blocks)], _next_in_backward(self.blocks), strict=True
        ):
            block.set_modules_to_backward_prefetch([before])
        # The last block's keys and values of the image are used by no later block, so nothing gathers it again for
        # their gradients.
        self.blocks[-1].set_reshard_after_backward(False)

    def loss(self, batch: Batch) -> Loss:
        """Return the loss of this rank's batch."""
        if not getattr(self.module.objective, "one_pass", False):
            self._gather()
        return self.root(self.module.loss, batch)

    @contextmanager
    def accumulate(self, *, last: bool) -> Iterator[None]:
        """Divide the gradients of each batch immediately: undivided, they would take as much memory as the model."""
        with self.ranks.together_in_passes():
            yield
            self._divide()

    @contextmanager
    def whole_model(self) -> Iterator[None]:
        """Gather the whole model on every rank."""
        with torch.no_grad():
            self.root(lambda: None)  # torch finds out in a first pass how modules are nested
        self._gather()
        try:
            yield
        finally:
            self._divide()

    def load_weights(self, folder: Path) -> None:
        """Load this rank's part of the weights of a checkpoint."""
        model = self.module.model
        check_weights(model, folder)
        own = model.state_dict()
        with torch.no_grad():
            for name, whole in read_weights(folder).items():
                own[name].copy_(part_like(own[name], whole))

    def weights(self) -> dict[str, torch.Tensor] | None:
        """Return all weights on the CPU of the main rank; all ranks must call it."""
        return gathered(self.module.model.state_dict(keep_vars=True), keep=self.ranks.is_main)

    def _gather(self) -> None:
        for block in self.blocks:
            block.set_reshard_after_forward(False)
            block.unshard()

    def _divide(self) -> None:
        for block in [*self.blocks, self.root]:
            block.reshard()
        for block in self.blocks:
            block.set_reshard_after_forward(True)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Return the layers of a captioner's language model; `UserError` if it has no list of layers."""
    lm = getattr(getattr(model, "decoder", None), "lm", None)
    layers = max(
        (part for part in lm.modules() if isinstance(part, nn.ModuleList)) if lm is not None else (),
        key=len,
        default=None,
    )
    if not layers:
        raise UserError(
            "trainer.shard=true divides a language model by its layers, and this decoder has no list of them: set "
            "trainer.shard=false"
        )
    return list(layers)


def _next_in_backward(blocks: list[Any]) -> list[Any]:
    """Return which block to prefetch after the root, the last block, ..., the first.

    After the first comes the last again: its part of the image pass, if that is a pass of its own, runs at the end.
    """
    return [*reversed(blocks), blocks[-1]]
