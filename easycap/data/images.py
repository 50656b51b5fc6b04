"""Where an image's pixels come from: a file on disk, or a row of a packed array."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


class BadImage(ValueError):
    """A file that is missing or cannot be read as an image; `what` is the reason without the file's name."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(path, what)  # both, so that it can travel from a worker to the main process
        self.path, self.what = path, what

    def __str__(self) -> str:
        return f"{self.path} {self.what}"


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file in any format Pillow reads."""

    path: Path

    def load(self, at_least: int | None = None) -> Image.Image:
        """Return the image as RGB, turned upright by its EXIF tag, what is transparent on white.

        Where `at_least` is given, a JPEG with a short side of twice that or more is decoded at 1/2, 1/4 or 1/8 of its
        size, never below `at_least`. Raises `BadImage` naming a file that is missing or no image.
        """
        with _opened(self.path, at_least) as image:
            return _as_rgb(ImageOps.exif_transpose(image))

    def array(self, at_least: int | None = None) -> np.ndarray:
        """Return the pixels (H,W,3), uint8, of what `load` returns, quicker."""
        with _opened(self.path, at_least) as image:
            pixels = _jpeg_pixels(image)
            if pixels is None:
                ImageOps.exif_transpose(image, in_place=True)
                pixels = np.array(_as_rgb(image))
            return pixels


@contextmanager
def _opened(path: Path, at_least: int | None) -> Iterator[Image.Image]:
    """An image file of which only the header has been read; whatever is wrong with it becomes `BadImage`."""
    try:
        with Image.open(path) as image:
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            yield image
    except FileNotFoundError:
        raise BadImage(path, "does not exist") from None
    except OSError as error:
        if error.errno is not None and not path.is_dir():
            raise  # the disk's trouble, not the image's
        raise BadImage(path, f"cannot be read as an image ({error})") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise whatever their parsing of a damaged file stumbles on
        raise BadImage(path, f"cannot be read as an image ({error})") from None


def _jpeg_pixels(image: Image.Image) -> np.ndarray | None:
    """The pixels of an upright RGB JPEG at the size it has been opened for; None for what is left to Pillow.

    libjpeg-turbo without Pillow's copies: the same pixels in three quarters of the time.
    """
    upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    if image.format != "JPEG" or image.mode != "RGB" or not upright:
        return None
    width, height = image.size
    image.fp.seek(0)
    try:
        return simplejpeg.decode_jpeg(image.fp.read(), min_width=width, min_height=height)
    except ValueError:  # Pillow says what is wrong, or reads what is only odd
        return None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits per value, which Pillow would cut off at 255 instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("its values are floating-point numbers, not colours")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


@dataclass(frozen=True, slots=True)
class PackedImage:
    """Row `row` of a .npy file of uint8 pixels (N,H,W,3)."""

    path: Path
    row: int

    def array(self, at_least: int | None = None) -> np.ndarray:
        """Return the pixels (H,W,3), uint8, still on disk until read, all of them whatever is asked for."""
        return _pixels(self.path)[self.row]

    def load(self, at_least: int | None = None) -> Image.Image:
        """Return the RGB image, whole whatever is asked for."""
        return Image.fromarray(np.asarray(self.array()))


@dataclass(frozen=True, slots=True)
class ImageWithFeatures:
    """An image whose features have the name `features` in their store; pixels are for people, and other models."""

    image: ImageFile | PackedImage
    features: str

    def load(self, at_least: int | None = None) -> Image.Image:
        return self.image.load(at_least)

    def array(self, at_least: int | None = None) -> np.ndarray:
        return self.image.array(at_least)


def identity(image: ImageFile | PackedImage | ImageWithFeatures) -> str:
    """Return a line that changes with the image's file: its path, size and time of change."""
    if isinstance(image, ImageWithFeatures):
        return identity(image.image)
    status = image.path.stat()
    row = image.row if isinstance(image, PackedImage) else ""
    return f"{image.path.absolute()}\0{row}\0{status.st_size}\0{status.st_mtime_ns}\n"


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
