"""Every grid cell or region as an image token."""

from __future__ import annotations

import torch
from torch import nn

from easycap.registry import register
from easycap.types import Features


@register("image_tokens", "all")
class All(nn.Module):
    """Each cell through one shared Linear(C, D), padding masked: tokens (N,R,D). The identity when C equals D."""

    def __init__(self, *, channels: int, memory_dim: int, source_grid: tuple[int, int] | None) -> None:
        super().__init__()
        self.grid = source_grid
        self.project = nn.Identity() if channels == memory_dim else nn.Linear(channels, memory_dim)

    def forward(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        return self.project(features.cells), features.mask
