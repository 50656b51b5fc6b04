"""Cross entropy: the objective every captioner starts with."""

from __future__ import annotations

import torch
from torch import nn

from easycap.errors import UserError
from easycap.registry import register
from easycap.types import Batch, Output


@register("objective", "xe")
class CrossEntropy:
    """Mean negative log-likelihood per word (eos included, padding excluded), in nats, with label smoothing.

    With `ignore_unk` unknown words are read but are not targets: they count neither in the sum nor in the mean.
    Extra losses a decoder reports (attention regularisers) are added and logged under their names.
    """

    one_pass = True  # see `one_pass` of `Objective`

    def __init__(self, pad_id: int, unk_id: int | None, *, label_smoothing: float, ignore_unk: bool) -> None:
        if not 0.0 <= label_smoothing < 1.0:
            raise UserError(f"objective.label_smoothing={label_smoothing} must be in [0, 1)")
        self.label_smoothing = label_smoothing
        self.pad_id = pad_id
        self.ignored_id = unk_id if ignore_unk else None
        self.signature = f"xe|smoothing:{label_smoothing:g}" + ("|unk:ignored" if ignore_unk else "")

    def begin_epoch(self, epoch: int) -> None:
        """Do nothing: the loss is the same in every epoch."""

    def next_stage(self) -> None:
        """Return None: there is one stage."""

    def __call__(self, captioner: nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        real = batch.targets != self.pad_id
        return self.loss_of_output(
            captioner(batch.inputs, batch.input_ids, batch.rows, real=real), batch.targets
        )

    def loss_of_output(
        self, output: Output, targets: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of an Output for targets (B,T), and its parts to log.

        If the Output has logits of real words only, those are the words whose targets are not padding.
        """
        logits = output.logits
        if logits.ndim == 2:
            targets = targets[targets != self.pad_id]
        if self.ignored_id is not None:
            targets = targets.masked_fill(targets == self.ignored_id, self.pad_id)
        loss = nn.functional.cross_entropy(
            logits.flatten(0, -2).float(),
            targets.flatten(),
            ignore_index=self.pad_id,
            label_smoothing=self.label_smoothing,
        )
        parts = {"loss": loss, **output.losses}
        total = sum(parts.values(), loss.new_zeros(()))
        return total, {name: value.detach() for name, value in parts.items()}
