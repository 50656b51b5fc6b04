"""Cross entropy on captions in which some words are the model's own."""

from __future__ import annotations

import math
from enum import Enum

import torch
from torch import nn

from easycap.errors import UserError
from easycap.objectives.xe import CrossEntropy
from easycap.registry import register
from easycap.types import Batch


class Growth(Enum):
    """How the share of own words grows with the epochs."""

    linear = "linear"
    inverse_sigmoid = "inverse_sigmoid"


@register("objective", "scheduled_sampling")
class ScheduledSampling:
    """Cross entropy where the decoder reads, for a share of the words, what it would have generated (1506.03099).

    While training, each word after bos is replaced with a chance of `share` by one drawn from the model, which has
    read what it drew before; the targets stay. The share grows with n = stages since `start_epoch`, a stage being
    `every_epochs` epochs: `linear` is rate * n; `inverse_sigmoid` is 1 - rate / (rate + exp(n / rate)); neither
    exceeds `max_share`. The words are drawn in a pass without gradient before the pass that learns from them: one
    encoder pass, any decoder, dropout drawn again. Logs the share as "own_words".
    Raises `UserError` for settings out of range.
    """

    def __init__(
        self,
        pad_id: int,
        *,
        growth: Growth,
        rate: float,
        max_share: float,
        start_epoch: int,
        every_epochs: int,
        label_smoothing: float,
    ) -> None:
        if rate <= 0 or (growth is Growth.inverse_sigmoid and rate < 1):
            raise UserError(
                f"objective.rate={rate} must be above 0, and at least 1 with objective.growth=inverse_sigmoid"
            )
        if not 0 <= max_share <= 1:
            raise UserError(f"objective.max_share={max_share} must be in [0, 1]")
        if start_epoch < 0:
            raise UserError(f"objective.start_epoch={start_epoch} must not be negative (0: the first epoch)")
        if every_epochs < 1:
            raise UserError(f"objective.every_epochs={every_epochs} must be at least 1")
        self.growth, self.rate, self.max_share = growth, rate, max_share
        self.start_epoch, self.every_epochs, self.pad_id = start_epoch, every_epochs, pad_id
        self.cross_entropy = CrossEntropy(
            label_smoothing=label_smoothing, ignore_unk=False, pad_id=pad_id, unk_id=None
        )
        self.signature = f"{self.cross_entropy.signature}|own words:{growth.name}, at most {max_share:g}"
        self.share = 0.0

    def begin_epoch(self, epoch: int) -> None:
        """Set the share of this epoch (from 0)."""
        self.share = self.share_at(epoch)

    def next_stage(self) -> None:
        """There is one stage."""

    @property
    def one_pass(self) -> bool:
        """Whether no word of this epoch is the model's own; see `Objective`."""
        return not self.share

    def share_at(self, epoch: int) -> float:
        """Return the share of words that are the model's own in this epoch (from 0)."""
        if epoch < self.start_epoch:
            return 0.0
        stage = (epoch - self.start_epoch) // self.every_epochs
        if self.growth is Growth.linear:
            return min(self.max_share, self.rate * stage)
        # exp(-x) instead of exp(x): no overflow after thousands of stages
        kept = self.rate * math.exp(-stage / self.rate)
        return min(self.max_share, 1 / (1 + kept))

    def __call__(self, captioner: nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        share = self.share if captioner.training else 0.0
        own_words, real = self._own_words(batch.input_ids, share), batch.targets != self.pad_id
        output = captioner(batch.inputs, batch.input_ids, batch.rows, own_words, real)
        loss, parts = self.cross_entropy.loss_of_output(output, batch.targets)
        return loss, parts | {"own_words": torch.tensor(share)}

    def _own_words(self, words: torch.Tensor, share: float) -> torch.Tensor | None:
        """Return which words (B,T) the model generates itself; padding never."""
        if not share:
            return None
        return (torch.rand(words.shape, device=words.device) < share) & (words != self.pad_id)
