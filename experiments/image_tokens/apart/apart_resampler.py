"""A resampler whose queries attend to different features before training: image_tokens=apart_resampler.

PYTHONPATH=experiments/image_tokens/apart easycap train --config-dir experiments/image_tokens/apart \
    imports=[apart_resampler] image_tokens=apart_resampler experiment=...
"""

from __future__ import annotations

from typing import Any

import torch

from easycap import register
from easycap.models.image_tokens.resampler import Resampler


@register("image_tokens", "apart_resampler")
class ApartResampler(Resampler):
    """A Resampler with scaled initial query and key weights and positions."""

    def __init__(
        self,
        channels: int,
        memory_dim: int,
        source_grid: tuple[int, int] | None,
        *,
        count: int,
        num_layers: int,
        num_heads: int,
        gain: float,
        position_gain: float,
    ) -> None:
        sizes: dict[str, Any] = {"count": count, "num_layers": num_layers, "num_heads": num_heads}
        super().__init__(channels, memory_dim, source_grid, **sizes)
        with torch.no_grad():
            for layer in self.layers:
                layer.query.weight.mul_(gain)
                layer.key.weight.mul_(gain)
            if self.positions is not None:
                self.positions.mul_(position_gain)
