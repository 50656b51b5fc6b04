"""The encoder of a model that reads precomputed features."""

from __future__ import annotations

import torch
from torch import nn

from easycap.errors import UserError
from easycap.models.checks import check_regions
from easycap.registry import register
from easycap.types import Features, PrecomputedSettings


@register("encoder", "precomputed")
class Precomputed(nn.Module):
    """Stands for the encoder that computed the features (N,R,C) in a batch; has no weights and sees no images.

    Its settings are those of the features, which `data.feature_files.PrecomputedFeatures` reads; the model needs their
    width C. Raises `UserError` for numbers out of range.
    """

    grid = None
    preprocessing = None

    def __init__(self, *, shared: PrecomputedSettings) -> None:
        super().__init__()
        if shared.region_dim < 1:
            raise UserError(
                f"encoder.region_dim={shared.region_dim} must be at least 1; bottom-up features have 2048"
            )
        check_regions(shared.min_regions, shared.max_regions)
        self.channels = shared.region_dim

    def forward(self, images: torch.Tensor) -> Features:
        raise AssertionError("batches bring features; see Captioner.encode")
