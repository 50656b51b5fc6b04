"""One vector per image."""

from __future__ import annotations

import torch

from easycap.types import Features


def mean_of_cells(features: Features) -> torch.Tensor:
    """Return the mean of the real cells (N,C)."""
    weights = features.mask.unsqueeze(-1).to(features.cells.dtype)
    return (features.cells * weights).sum(1) / weights.sum(1)
