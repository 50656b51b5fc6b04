"""From an image source to the uint8 square an encoder expects."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image

from easycap.data.images import PackedImage
from easycap.types import ImageSource, Preprocessing

_INTERPOLATION = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Transform:
    """An image source -> tensor (3,S,S) uint8: the short side resized to S / crop, the centre cut out.

    Values stay uint8, a quarter of the bytes of float32; normalisation is done once per batch on the device.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.size = preprocessing.size
        self.resized = math.floor(preprocessing.size / preprocessing.crop + 1e-6)  # down, as timm does
        self.interpolation = _INTERPOLATION.get(preprocessing.interpolation, Image.Resampling.BICUBIC)

    def begin_epoch(self, epoch: int) -> None:
        """The same in every epoch."""

    def __call__(self, source: ImageSource) -> torch.Tensor:
        if isinstance(source, PackedImage):
            pixels = source.array()
            if pixels.shape[:2] == (self.size, self.size):  # drawn at this size: nothing to resize or crop
                return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
        image = source.load(self.resized)
        return torch.from_numpy(np.array(self._square(image))).permute(2, 0, 1)

    def window(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return left, top, right, bottom of what is cut out of an image of this (width, height), in its own pixels."""
        box = [0.0] * 4
        for axis, side in enumerate(size):
            # rounded as torchvision's Resize and CenterCrop, by which pretrained weights were measured
            resized = self.resized * side // min(size)
            start = round((resized - self.size) / 2)
            box[axis], box[axis + 2] = start * side / resized, (start + self.size) * side / resized
        return box[0], box[1], box[2], box[3]

    def _square(self, image: Image.Image) -> Image.Image:
        """Resize only what the centre crop keeps: the same pixels, and a 20,000 x 1 image needs no gigabytes."""
        window = self.window(image.size)
        return image.resize((self.size, self.size), self.interpolation, box=window, reducing_gap=2.0)
