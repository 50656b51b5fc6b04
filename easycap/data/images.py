"""Where an image's pixels come from: a file on disk, or a row of a packed array."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


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


def image_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files, and the images inside the folders, in order; `ValueError` names what does not exist."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
            if not found:
                raise ValueError(f"{path} holds no images ({', '.join(sorted(_SUFFIXES))})")
            files += found
        elif path.exists():
            files.append(path)
        else:
            raise ValueError(f"{path} does not exist")
    return files


def images_by_id(folder: Path, ids: Collection[str]) -> dict[str, ImageFile]:
    """Return the image file of each id: the one named by it, or whose name ends in that number as COCO's do.

    Raises `ValueError` naming an id without a file or with two.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder of images")
    files: dict[str, list[Path]] = defaultdict(list)
    for path in image_files([folder]):
        number = re.search(r"\d+$", path.stem)
        for image_id in {path.stem, path.name, str(int(number[0])) if number else path.stem}:
            files[image_id].append(path)
    for image_id in ids:
        found = files.get(image_id, [])
        if len(found) != 1:
            what = f"{len(found)} images ({found[0].name}, {found[1].name})" if found else "no image"
            raise ValueError(
                f"{folder} holds {what} for id {image_id!r}: one must be called {image_id}.jpg or ..._{image_id}.jpg"
            )
    return {image_id: ImageFile(files[image_id][0]) for image_id in ids}


@lru_cache(maxsize=16)
def _pixels(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")
