"""Cross entropy: the objective every captioner starts with."""

from __future__ import annotations

import torch
from torch import nn

from easycap.registry import register
from easycap.types import Batch, Output


@register("objective", "xe")
class CrossEntropy:
    """Mean negative log-likelihood per word (eos included, padding excluded), in nats, with label smoothing.

    Extra losses a decoder reports (attention regularisers) are added and logged under their names.
    """

    def __init__(self, *, label_smoothing: float, pad_id: int) -> None:
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"objective.label_smoothing={label_smoothing} must be in [0, 1)")
        self.label_smoothing = label_smoothing
        self.pad_id = pad_id
        self.signature = f"xe|smoothing:{label_smoothing:g}"

    def begin_epoch(self, epoch: int) -> None:
        """The same in every epoch."""

    def next_stage(self) -> None:
        """There is one stage."""

    def __call__(self, captioner: nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return self.of(captioner(batch.inputs, batch.words, batch.rows), batch.targets)

    def of(self, output: Output, targets: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of an Output for targets (B,T), and its parts to log."""
        loss = nn.functional.cross_entropy(
            output.logits.flatten(0, 1).float(),
            targets.flatten(),
            ignore_index=self.pad_id,
            label_smoothing=self.label_smoothing,
        )
        parts = {"loss": loss, **output.losses}
        total = sum(parts.values())
        return total, {name: value.detach() for name, value in parts.items()}
