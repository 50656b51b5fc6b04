"""The one vector that `split`, `mlp` and `mapper` make image tokens of."""

from __future__ import annotations

import torch

from easycap.types import Features


def one_vector(features: Features, normalize: bool) -> torch.Tensor:
    """Return the mean of the real patches (N,C); with `normalize` divided by its length.

    A CLIP embedding says what it says by its direction alone; ClipCap's Transformer mappers were trained on vectors of
    length 1 (train.py:42-47 of rmokady/CLIP_prefix_caption at 1ad805a).
    """
    mean = features.mean()
    return torch.nn.functional.normalize(mean, dim=-1) if normalize else mean
