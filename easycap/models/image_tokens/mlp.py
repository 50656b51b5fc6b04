"""ClipCap's first mapper: one vector through a hidden layer, cut into K pieces."""

from __future__ import annotations

import torch
from torch import nn

from easycap.models.checks import check_count
from easycap.registry import register
from easycap.types import Features


@register("image_tokens", "mlp")
class MLP(nn.Module):
    """The mean of the patches (N,C) -> tanh layer of K*D/2 -> K tokens (N,K,D) (Mokady et al., 2111.09734, section
    3.2).

    With GPT-2 small, K = 10 and CLIP's 640 numbers: 32 million parameters.
    """

    grid = None

    def __init__(self, channels: int, memory_dim: int, *, count: int, normalize: bool) -> None:
        super().__init__()
        self.count, self.normalize = check_count(count), normalize
        hidden = count * memory_dim // 2
        self.layers = nn.Sequential(
            nn.Linear(channels, hidden), nn.Tanh(), nn.Linear(hidden, count * memory_dim)
        )

    def forward(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self.layers(features.mean(normalize=self.normalize)).unflatten(-1, (self.count, -1))
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
