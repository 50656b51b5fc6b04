"""Image tokens from the feature map: every patch, or the patches of a coarse grid laid over it."""

from __future__ import annotations

import math

import torch
from torch import nn

from easycap.errors import UserError
from easycap.registry import register
from easycap.types import Features


@register("image_tokens", "grid")
class Grid(nn.Module):
    """The feature map average-pooled to h x w = K patches, each through one shared Linear(C, D): tokens (N,K,D).

    Of the ways to write K as h*w with h and w at most the map's, the one nearest to the map's aspect is taken.
    Raises `UserError`, listing the K this map can give, if there is none or the features form no grid.
    """

    def __init__(
        self, channels: int, memory_dim: int, source_grid: tuple[int, int] | None, *, count: int
    ) -> None:
        super().__init__()
        self.grid = grid_shape(count, source_grid)
        self.pool = nn.AdaptiveAvgPool2d(self.grid)
        self.project = nn.Linear(channels, memory_dim)

    def forward(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        assert features.grid is not None
        maps = features.patches.transpose(1, 2).unflatten(-1, features.grid)
        tokens = self.project(self.pool(maps).flatten(2).transpose(1, 2))
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)


def grid_shape(count: int, source: tuple[int, int] | None) -> tuple[int, int]:
    """Return (h, w) with h*w == count that fits into `source` (h,w) and is nearest to its aspect ratio."""
    if source is None:
        raise UserError("image_tokens=grid needs an encoder whose features form a grid; use resampler or all")
    height, width = source
    shapes = {h * w for h in range(1, height + 1) for w in range(1, width + 1)}
    if count not in shapes:
        raise UserError(
            f"image_tokens.count={count} is not an h x w grid within the encoder's {height} x {width} map; "
            f"possible: {', '.join(map(str, sorted(shapes)))}"
        )
    fits = [(h, count // h) for h in range(1, height + 1) if count % h == 0 and count // h <= width]
    return min(fits, key=lambda hw: abs(math.log(hw[0] / hw[1]) - math.log(height / width)))


@register("image_tokens", "all")
class All(nn.Module):
    """Each patch through one shared Linear(C, D), padding masked: tokens (N,R,D). The identity when C equals D."""

    def __init__(self, channels: int, memory_dim: int, source_grid: tuple[int, int] | None) -> None:
        super().__init__()
        self.grid = source_grid
        self.project = nn.Identity() if channels == memory_dim else nn.Linear(channels, memory_dim)

    def forward(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        return self.project(features.patches), features.mask
