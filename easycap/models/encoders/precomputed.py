"""A view of the image that was made elsewhere."""

from __future__ import annotations

import torch
from torch import nn

from easycap.models.encoders.checks import check_regions
from easycap.registry import register
from easycap.types import Features


@register("encoder", "precomputed")
class Precomputed(nn.Module):
    """Stands for what made the features (N,R,C) that batches bring from files; it has no weights and sees no images.

    The settings are those of `data.precomputed.PrecomputedFeatures`, which reads the files: `features` says where they
    are, `region_dim` is C, and an image has from `min_regions` to `max_regions` regions. Raises `ValueError` for
    numbers out of range.
    """

    grid = None
    preprocessing = None

    def __init__(self, *, features: str, region_dim: int, min_regions: int, max_regions: int) -> None:
        super().__init__()
        if region_dim < 1:
            raise ValueError(
                f"encoder.region_dim={region_dim} must be at least 1; bottom-up features have 2048"
            )
        check_regions(min_regions, max_regions)
        self.channels = region_dim

    def forward(self, images: torch.Tensor) -> Features:
        raise AssertionError("batches bring features; see Captioner.encode")
