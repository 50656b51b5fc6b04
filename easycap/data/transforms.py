"""From an image source to the uint8 square an encoder expects, in training also from a random part of it."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from easycap.data.images import ImageWithFeatures, PackedImage
from easycap.errors import UserError
from easycap.types import Example, ImageSource, Preprocessing

# Also within words (topleft), but not in bright, fright, wright, upright and copyright; in German and Chinese too.
_SIDES = re.compile(
    r"left|(?<![bfw])(?<!\bup)(?<!\bcopy)right|\blink(?:s|e[mnrs]?)\b|\brecht(?:s|e[mnrs]?)\b|[左右]",
    re.IGNORECASE,
)
_LOG_RATIO = math.log(4 / 3)
_LONGEST = 4  # times the short side: a 20,000 x 1 image must not be resized to gigabytes


class Transform:
    """An image source -> tensor (3,S,S) uint8: the short side resized to S / crop, the centre cut out; or, where the
    encoder asks for it, the whole image squashed to S x S.

    Values stay uint8, a quarter of the bytes of float32; normalisation is done once per batch on the device.
    Raises `UserError` if there is no `preprocessing`, as of an encoder that sees no images.
    """

    def __init__(self, preprocessing: Preprocessing | None) -> None:
        if preprocessing is None:
            raise UserError(
                "a model with encoder=precomputed reads features that were made elsewhere and cannot see raw images: "
                "`easycap evaluate` captions images that have such features; for any photo train with an encoder of "
                "images, e.g. encoder=regions"
            )
        self.size = preprocessing.size
        self.resized = math.floor(preprocessing.size / preprocessing.crop + 1e-6)  # down, as timm does
        self.squash = preprocessing.squash
        self.interpolation = "bilinear" if preprocessing.interpolation == "bilinear" else "bicubic"

    def begin_epoch(self, epoch: int) -> None:
        """The same in every epoch."""

    def of(self, example: Example) -> torch.Tensor:
        """Return what a model gets of an example."""
        return self(example.image)

    def of_features(self, features: torch.Tensor) -> torch.Tensor:
        """Return what a model gets of features (R,C) that its encoder made before: the same."""
        return features

    def blank(self) -> torch.Tensor:
        """Return a black image (1,3,S,S), uint8."""
        return torch.zeros(1, 3, self.size, self.size, dtype=torch.uint8)

    def identity(self) -> tuple[str, ...]:
        """Return what features depend on besides the encoder, its settings and its `Preprocessing`: nothing."""
        return ()

    def __call__(self, source: ImageSource) -> torch.Tensor:
        """Return the pixels (3,S,S), uint8, of the square that an encoder sees of an image."""
        if isinstance(source, ImageWithFeatures):
            source = source.image
        pixels = _pixels(source, self.resized)
        if isinstance(source, PackedImage) and pixels.shape[1:] == (self.size, self.size):
            return pixels  # drawn at this size: nothing to resize or crop
        long, short = max(pixels.shape[1:]), min(pixels.shape[1:])
        if long > _LONGEST * short:
            axis = pixels.shape.index(long, 1)
            pixels = pixels.narrow(axis, (long - _LONGEST * short) // 2, _LONGEST * short)
        if self.squash:
            return self.resize(pixels, (self.size, self.size))
        # rounded as torchvision's Resize and CenterCrop, by which pretrained weights were measured
        height, width = (self.resized * side // short for side in pixels.shape[1:])
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        resized = self.resize(pixels, (height, width))
        return resized[:, top : top + self.size, left : left + self.size]

    def window(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return left, top, right, bottom of what is cut out of an image of this (width, height), in its own pixels."""
        if self.squash:
            return 0.0, 0.0, float(size[0]), float(size[1])
        box = [0.0] * 4
        for axis, side in enumerate(size):
            resized = self.resized * side // min(size)
            start = round((resized - self.size) / 2)
            box[axis], box[axis + 2] = start * side / resized, (start + self.size) * side / resized
        return box[0], box[1], box[2], box[3]

    def resize(self, pixels: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Return pixels (3,H,W) uint8 at another size (height, width), antialiased, rounded to uint8."""
        return F.interpolate(pixels[None], size=size, mode=self.interpolation, antialias=True)[0]


class Mirrored:
    """What `transform` has of an example, mirrored."""

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def begin_epoch(self, epoch: int) -> None:
        """The same in every epoch."""

    def of(self, example: Example) -> torch.Tensor:
        """Return the mirrored square (3,S,S), uint8."""
        return self.transform.of(example).flip(2)


def may_flip(example: Example) -> bool:
    """Whether no caption of an image mentions left or right."""
    return not any(map(_SIDES.search, example.references))


def is_flipped(example: Example, seed: int, epoch: int) -> bool:
    """Whether an image that `may_flip` is mirrored in this epoch."""
    return _draw(example, seed, epoch).random() < 0.5


def _draw(example: Example, seed: int, epoch: int) -> random.Random:
    return random.Random(f"view/{seed}/{epoch}/{example.id}")


class Augmentation:
    """What training gets of an example with random crops and flips, a function of (seed, epoch, image id) alone.

    `crop` is the least share of the image's area that is seen (None: always the transform's own window): share,
    position and a ratio of width to height between 3/4 and 4/3 are drawn as Inception was trained (Szegedy et al.,
    CVPR 2015, section 6); a side that would be longer than the image's is cut to it. With `flip` every other image is
    mirrored, but never one of whose captions speaks of left or right: holds the letters of either, alone or within a
    word, unless they are those of bright, fright, wright, upright or copyright.
    """

    def __init__(self, transform: Transform, *, crop: float | None, flip: bool, seed: int) -> None:
        self.transform, self.crop, self.flip, self.seed, self.epoch = transform, crop, flip, seed, 0

    def begin_epoch(self, epoch: int) -> None:
        """Called before an epoch (from 0) is loaded; processes that load are forked after it."""
        self.epoch = epoch

    def of(self, example: Example) -> torch.Tensor:
        """Return what a model gets of an example (3,S,S) in this epoch."""
        draw = _draw(example, self.seed, self.epoch)
        flipped = self.flip and draw.random() < 0.5 and may_flip(example)
        if self.crop is None:
            square = self.transform(example.image)
        else:
            square = self._random_part(example.image, self.crop, draw)
        return square.flip(2) if flipped else square

    def _random_part(self, source: ImageSource, least_share: float, draw: random.Random) -> torch.Tensor:
        share, ratio = draw.uniform(least_share, 1), math.exp(draw.uniform(-_LOG_RATIO, _LOG_RATIO))
        # So many pixels on the image's short side leave the window at least as many as the square has.
        least = self.transform.size / math.sqrt(share * min(ratio, 1 / ratio))
        pixels = _pixels(source, math.ceil(least))
        height, width = pixels.shape[1:]
        high = max(1, min(height, round(math.sqrt(width * height * share / ratio))))
        wide = max(1, min(width, round(math.sqrt(width * height * share * ratio))))
        top, left = draw.randint(0, height - high), draw.randint(0, width - wide)
        part = pixels[:, top : top + high, left : left + wide]
        return self.transform.resize(part, (self.transform.size, self.transform.size))


def _pixels(source: ImageSource, at_least: int) -> torch.Tensor:
    """The pixels of an image as a tensor (3,H,W) uint8 of its own."""
    pixels = source.array(at_least)
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1)
