"""All tags at once: a multi-label head on the pooled features."""

from __future__ import annotations

import torch
from torch import nn

from easycap.errors import UserError
from easycap.registry import register
from easycap.types import Features

_START = -3.0  # logit of every tag before training: few of them are in an image


def mean_and_largest(features: Features) -> torch.Tensor:
    """Return the mean of the real patches and their maximum (N,2C): small objects fill few patches."""
    hidden = features.patches.masked_fill(~features.mask.unsqueeze(-1), -torch.inf)
    return torch.cat([features.mean(), hidden.amax(1)], 1)


@register("tagger", "cnn")
class MultiLabelTagger(nn.Module):
    """Pooled features -> one logit per tag, the product of a hidden layer (width W) with the tag's own vector.

    Of hundreds of tags an image has a few, so that almost all of a plain cross entropy would be about tags that are
    clearly not there. The asymmetric loss (Ridnik et al., ICCV 2021, equations 4-7) weighs these down by their own
    probability p and needs no statistics of the data:

        there:      -(1 - p)^gamma_positive  log p
        not there:  -q^gamma_negative  log(1 - q),   q = max(p - margin, 0)

    summed over tags and images, per tag that is there and one for each image, so that a batch in parts counts as one.
    Ranks are what it makes good; its probabilities come out above the shares they stand for, the more so the larger
    gamma_negative is.
    """

    def __init__(
        self,
        channels: int,
        vocab_size: int,
        num_tags: int,
        pad_id: int,
        *,
        width: int,
        dropout: float,
        gamma_positive: float,
        gamma_negative: float,
        margin: float,
    ) -> None:
        super().__init__()
        if width < 1:
            raise UserError(f"tagger.width={width} must be at least 1")
        for name, value in (("dropout", dropout), ("margin", margin)):
            if not 0.0 <= value < 1.0:
                raise UserError(f"tagger.{name}={value} must be in [0, 1)")
        for name, value in (("gamma_positive", gamma_positive), ("gamma_negative", gamma_negative)):
            if value < 0:
                raise UserError(f"tagger.{name}={value} must not be negative, 0 is plain cross entropy")
        self.max_length = num_tags + 1
        self.special, self.pad_id = vocab_size - num_tags, pad_id
        self.gammas, self.margin = (gamma_positive, gamma_negative), margin
        self.hidden = nn.Sequential(
            nn.LayerNorm(2 * channels), nn.Linear(2 * channels, width), nn.GELU(), nn.Dropout(dropout)
        )
        self.tags = nn.Embedding(num_tags, width)
        nn.init.normal_(self.tags.weight, std=width**-0.5)
        self.bias = nn.Parameter(torch.full((num_tags,), _START))

    def logits(self, features: Features) -> torch.Tensor:
        """Return (N, tags)."""
        return nn.functional.linear(self.hidden(mean_and_largest(features)), self.tags.weight, self.bias)

    def probabilities(self, features: Features) -> torch.Tensor:
        return self.logits(features).sigmoid()

    def loss(self, features: Features, words: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = self.logits(features).float()
        there = torch.zeros(len(logits), self.special + logits.shape[1], device=logits.device)
        there = there.scatter(1, targets, 1.0)[:, self.special :]
        found = nn.functional.logsigmoid(logits)
        wrong = (logits.sigmoid() - self.margin).clamp(min=0)
        positive = -((1 - logits.sigmoid()) ** self.gammas[0]) * found
        negative = -(wrong ** self.gammas[1]) * torch.log1p(-wrong.clamp(max=1 - 1e-6))
        return (there * positive + (1 - there) * negative).sum() / (targets != self.pad_id).sum()
