"""The objective of tag models: whatever their tagger's own loss is."""

from __future__ import annotations

import torch
from torch import nn

from easycap.types import Batch


class TagLoss:
    """The loss of `TagModel.forward`, a mean over tags.

    It has one stage and nothing that changes with the epochs.
    """

    signature = "tags"

    def begin_epoch(self, epoch: int) -> None:
        """The same in every epoch."""

    def next_stage(self) -> None:
        """There is one stage."""

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss = model(batch.inputs, batch.input_ids, batch.targets)
        return loss, {"loss": loss.detach()}
