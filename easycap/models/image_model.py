"""What captioners and tag models share: they see images through an encoder that may be frozen."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from easycap.models.folding import fold_batchnorm
from easycap.types import Encoder, Features, Inputs

# Folding BatchNorm costs two passes of one image and a copy: with fewer images than these it would not pay.
_WORTH_FOLDING = 64
# Convolutions run faster on images whose channels lie next to each other; elsewhere it is not known to help.
_CHANNELS_LAST = {"cpu", "cuda"}


class ImageModel(nn.Module):
    """Has an encoder: images (N,3,H,W) uint8 -> Features.

    Normalisation happens here, on the device, with the encoder's own mean and std. While the encoder is frozen it
    gets no gradient and stays in eval mode, so that BatchNorm statistics do not drift; `freeze_batchnorm` keeps these
    also while it is trained.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.encoder_frozen = self.freeze_batchnorm = False
        self._fold = False
        self._folded: tuple[nn.Module, Any] | None = None  # in a tuple, so that it is not part of this module
        pixels = encoder.preprocessing
        mean, std = (pixels.mean, pixels.std) if pixels else ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)

    def freeze_encoder(self, frozen: bool) -> None:
        """Freeze or release the encoder's weights and BatchNorm statistics."""
        self.encoder_frozen = frozen
        self._encoder_module.requires_grad_(not frozen)
        if not frozen:
            self._fold, self._folded = False, None
        self.train(self.training)

    def fold_encoder(self, num_images: int) -> None:
        """Make `encode` use a copy of the encoder with BatchNorm folded, if that pays off for so many images.

        The encoder's weights must stay frozen meanwhile; unfreezing them drops the copy. `state_dict` is unaffected.
        """
        assert not any(p.requires_grad for p in self._encoder_module.parameters()), (
            "an encoder in training cannot be folded"
        )
        self._fold = num_images >= _WORTH_FOLDING

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.encoder_frozen:
            self._encoder_module.eval()
        elif self.freeze_batchnorm:
            for module in self._encoder_module.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def encode(self, images: torch.Tensor) -> Features:
        """images (N,3,H,W) uint8, or the patches (N,R,C) made of them before, rows of NaN as padding -> Features."""
        if images.ndim == 3:
            mask = ~images[..., 0].isnan()
            patches = images.to(self.mean.dtype).masked_fill(~mask.unsqueeze(-1), 0)
            return Features(patches, mask, self.encoder.grid)
        # in place: bytes minus floats in one operation are ten times as slow on a CPU
        pixels = images.to(self.mean.dtype, copy=True).sub_(self.mean).div_(self.std)
        if pixels.device.type in _CHANNELS_LAST:  # after normalising, which is slow in this format
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encoder_frozen):
            return self._encoder_for(pixels)(pixels)

    @property
    def features_can_be_cached(self) -> bool:
        """Whether the encoder sees images: others read features that were made elsewhere."""
        return self.encoder.preprocessing is not None

    def features_of(self, inputs: Inputs) -> Features:
        """Return the features of the images of `inputs`."""
        return self.encode(inputs.images)

    @property
    def _encoder_module(self) -> nn.Module:
        assert isinstance(self.encoder, nn.Module)
        return self.encoder

    def _encoder_for(self, pixels: torch.Tensor) -> nn.Module:
        """The encoder, or its copy with BatchNorm folded."""
        encoder = self._encoder_module
        if not self._fold or encoder.training:
            return encoder
        of = [(t.data_ptr(), t._version) for t in (*encoder.parameters(), *encoder.buffers())]
        if self._folded is None or self._folded[1] != of:  # there is none, or of other weights
            example = torch.randn(1, *pixels.shape[1:], generator=torch.Generator().manual_seed(0))
            example = example.to(pixels).contiguous(memory_format=torch.channels_last)
            with torch.autocast(pixels.device.type, enabled=False):
                self._folded = (fold_batchnorm(encoder, example), of)
        return self._folded[0]
