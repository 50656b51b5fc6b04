"""A small convolutional encoder that learns from scratch in minutes on a CPU."""

from __future__ import annotations

import torch
from torch import nn

from easycap.errors import UserError
from easycap.registry import register
from easycap.types import Features, Preprocessing


@register("encoder", "small")
class SmallEncoder(nn.Module):
    """Stacked 3x3 convolutions, each halving the image: images (N,3,H,W) -> Features with R = h*w patches.

    `widths` are the channels of the stages; the last is C. With `image_size` 64 and four stages the grid is 4 x 4.
    GroupNorm instead of BatchNorm: no running statistics, so training and evaluation see the same function.
    Raises `UserError` if the image cannot be halved that often.
    """

    def __init__(self, *, image_size: int, widths: tuple[int, ...], blocks_per_stage: int) -> None:
        super().__init__()
        if not widths or min(widths) < 8 or any(width % 8 for width in widths):
            raise UserError(f"encoder.widths={list(widths)} must be multiples of 8, e.g. [32,64,128,192]")
        if image_size <= 0 or image_size % 2 ** len(widths):
            raise UserError(
                f"encoder.image_size={image_size} must be a positive multiple of {2 ** len(widths)} "
                f"(halved {len(widths)} times, once per stage)"
            )
        if blocks_per_stage < 1:
            raise UserError(f"encoder.blocks_per_stage={blocks_per_stage} must be at least 1")
        side = image_size // 2 ** len(widths)
        self.grid = (side, side)
        self.channels = widths[-1]
        self.preprocessing = Preprocessing(size=image_size, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        inputs = (3, *widths[:-1])
        self.stages = nn.Sequential(
            *(_stage(c_in, c_out, blocks_per_stage) for c_in, c_out in zip(inputs, widths, strict=True))
        )

    def forward(self, images: torch.Tensor) -> Features:
        maps = self.stages(images)
        patches = maps.flatten(2).transpose(1, 2)
        return Features(
            patches, patches.new_ones(patches.shape[:2], dtype=torch.bool), tuple(maps.shape[-2:])
        )


def _stage(c_in: int, c_out: int, blocks: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for block in range(blocks):
        stride = 2 if block == 0 else 1
        layers += [
            nn.Conv2d(c_in if block == 0 else c_out, c_out, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(8, c_out),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
