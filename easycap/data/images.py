"""Where an image's pixels come from: a file on disk, or a row of a packed array."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file in any format Pillow reads."""

    path: Path

    def load(self) -> Image.Image:
        """Return the RGB image turned upright by its EXIF tag; `ValueError` names a file that is no image."""
        try:
            with Image.open(self.path) as image:
                image = ImageOps.exif_transpose(image)
                return image.convert("RGB")
        except FileNotFoundError:
            raise ValueError(f"{self.path} does not exist") from None
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{self.path} cannot be read as an image ({error})") from None


@dataclass(frozen=True, slots=True)
class PackedImage:
    """Row `row` of a .npy file of uint8 pixels (N,H,W,3)."""

    path: Path
    row: int

    def array(self) -> np.ndarray:
        """Return the pixels (H,W,3), uint8, still on disk until read."""
        return _pixels(self.path)[self.row]

    def load(self) -> Image.Image:
        """Return the RGB image."""
        return Image.fromarray(np.asarray(self.array()))


@lru_cache(maxsize=16)
def _pixels(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")
