"""A resampler whose queries attend to different features before training: image_tokens=apart_resampler.

PYTHONPATH=experiments/image_tokens/apart easycap train --config-dir experiments/image_tokens/apart \
    imports=[apart_resampler] image_tokens=apart_resampler experiment=...
"""

from __future__ import annotations

import torch

from easycap import register
from easycap.models.image_tokens.resampler import Resampler


@register("image_tokens", "apart_resampler")
def apart_resampler(
    channels: int,
    memory_dim: int,
    source_grid: tuple[int, int] | None,
    *,
    count: int,
    gain: float,
    position_gain: float,
) -> Resampler:
    """Return a Resampler with scaled initial query and key weights and positions."""
    resampler = Resampler(channels, memory_dim, source_grid, count=count, num_layers=1, num_heads=4)
    scaled = [(layer.query.weight, gain) for layer in resampler.layers]
    scaled += [(layer.key.weight, gain) for layer in resampler.layers]
    if resampler.positions is not None:
        scaled.append((resampler.positions, position_gain))
    with torch.no_grad():
        for weight, factor in scaled:
            weight.mul_(factor)
    return resampler
