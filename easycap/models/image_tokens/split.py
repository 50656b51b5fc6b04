"""The project's own way to make image tokens: one vector, cut into K pieces."""

from __future__ import annotations

import torch
from torch import nn

from easycap.models.checks import check_count
from easycap.registry import register
from easycap.types import Features


@register("image_tokens", "split")
class Split(nn.Module):
    """The mean of the patches (N,C) through one Linear(C, K*D), reshaped to K tokens (N,K,D)."""

    grid = None

    def __init__(self, channels: int, memory_dim: int, *, count: int, normalize: bool) -> None:
        super().__init__()
        self.count, self.normalize = check_count(count), normalize
        self.project = nn.Linear(channels, count * memory_dim)

    def forward(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self.project(features.mean(normalize=self.normalize)).unflatten(-1, (self.count, -1))
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
