"""What captioners and tag models share: they see images through an encoder that may be frozen."""

from __future__ import annotations

from typing import Self

import torch
from torch import nn

from easycap.types import Encoder, Features


class ImageModel(nn.Module):
    """Has an encoder: images (N,3,H,W) uint8 -> Features.

    Normalisation happens here, on the device, with the encoder's own mean and std. While the encoder is frozen it
    gets no gradient and stays in eval mode, so that BatchNorm statistics do not drift.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.encoder_frozen = False
        pixels = encoder.preprocessing
        mean, std = (pixels.mean, pixels.std) if pixels else ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)

    def freeze_encoder(self, frozen: bool) -> None:
        """Freeze or release the encoder's weights and BatchNorm statistics."""
        self.encoder_frozen = frozen
        self.encoder.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.encoder_frozen:
            self.encoder.eval()
        return self

    def encode(self, images: torch.Tensor) -> Features:
        """images (N,3,H,W) uint8, or the cells (N,R,C) made of them before, rows of NaN as padding -> Features."""
        if images.ndim == 3:
            mask = ~images[..., 0].isnan()
            cells = images.to(self.mean.dtype).masked_fill(~mask.unsqueeze(-1), 0)
            return Features(cells, mask, self.encoder.grid)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encoder_frozen):
            # in place: bytes minus floats in one operation are ten times as slow on a CPU
            return self.encoder(images.to(self.mean.dtype, copy=True).sub_(self.mean).div_(self.std))
