"""Images as Python users have them: paths, bytes of files, PIL images, arrays."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from easycap.data.images import ImageFile, decoded, decoded_array, upright_rgb
from easycap.errors import UserError
from easycap.types import Example

# A path, the content of a file, a PIL image, or an array (H,W), (H,W,3) or (H,W,4); numpy converts other arrays.
ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray | Any"

_CHANNELS = (1, 3, 4)
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, eq=False)  # PIL images have no hash
class LoadedImage:
    """An RGB image in memory."""

    image: Image.Image

    def load(self, at_least: int | None = None) -> Image.Image:
        """Return the image, whole whatever is asked for."""
        return self.image

    def array(self, at_least: int | None = None) -> np.ndarray:
        """Return its pixels (H,W,3), uint8."""
        return np.asarray(self.image)

    def identity(self) -> str:
        """Return a line that changes with the pixels."""
        return f"{self.image.size} {hashlib.sha256(self.image.tobytes()).hexdigest()}\n"


_IN_MEMORY = Path("image")  # what errors name


@dataclass(frozen=True, slots=True)
class ImageBytes:
    """An image file that has been read; decoded as `ImageFile` decodes it."""

    content: bytes

    def load(self, at_least: int | None = None) -> Image.Image:
        """Return what `ImageFile.load` does."""
        return decoded(BytesIO(self.content), _IN_MEMORY, at_least)

    def array(self, at_least: int | None = None) -> np.ndarray:
        """Return what `ImageFile.array` does."""
        return decoded_array(BytesIO(self.content), _IN_MEMORY, at_least)

    def identity(self) -> str:
        """Return a line that changes with the content."""
        return f"{len(self.content)} {hashlib.sha256(self.content).hexdigest()}\n"


def is_single_image(images: Any) -> bool:
    """Whether this is one image rather than several."""
    if isinstance(images, str | os.PathLike | bytes | Image.Image):
        return True
    return not isinstance(images, list | tuple | Iterator) and getattr(images, "ndim", None) in (2, 3)


def as_examples(images: ImageLike | Iterable[ImageLike]) -> Iterator[Example]:
    """Yield one example without references for each image.

    Files are opened later. Raises `UserError` for what is not an image.
    """
    many = [images] if is_single_image(images) else images
    if not isinstance(many, Iterable):
        raise UserError(
            f"{_described(images)} is not an image; give a path, bytes, a PIL image, an array, or several"
        )
    return map(_example, many)


def _example(image: ImageLike) -> Example:
    if isinstance(image, str | os.PathLike):
        return Example(os.fspath(image), ImageFile(Path(image)), ())
    if isinstance(image, bytes):
        return Example(f"image {next(_numbers)}", ImageBytes(image), ())
    pillow = image if isinstance(image, Image.Image) else _of_array(image)
    return Example(f"image {next(_numbers)}", LoadedImage(upright_rgb(pillow)), ())


def _of_array(values: Any) -> Image.Image:
    """Integers of 0 to 255 (or 16 bits, one channel), or floats of 0 to 1 -> an image."""
    pixels = np.asarray(values)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.size == 0 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in _CHANNELS)):
        hint = ""
        if pixels.ndim == 3 and pixels.shape[0] in _CHANNELS:
            hint = ": move the channels to the end, e.g. with .transpose(1, 2, 0)"
        raise UserError(
            f"{_described(values)} is not an image; arrays must have the shape (H,W), (H,W,3) or (H,W,4){hint}"
        )
    if pixels.dtype == np.uint8:
        return Image.fromarray(pixels)
    if pixels.dtype.kind == "f" and pixels.min() >= 0 and pixels.max() <= 1:  # NaN is neither
        return Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
    if pixels.dtype.kind in "iu" and pixels.min() >= 0 and pixels.max() <= 255:
        return Image.fromarray(pixels.astype(np.uint8))
    if pixels.dtype == np.uint16 and pixels.ndim == 2:
        return Image.fromarray(pixels)
    low, high = (f"{value:g}" for value in (pixels.min(), pixels.max()))
    raise UserError(
        f"an array of {pixels.dtype} with values from {low} to {high} is not an image; integers must lie in 0 to "
        "255, floats in 0 to 1"
    )


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__}{'' if shape is None else f' of shape {tuple(shape)}'}"
