"""Where an image's pixels come from: a file on disk, or a row of a packed array."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from easycap.errors import UserError
from easycap.types import ImageSource
from easycap.utils.paths import path_text


class BadImage(UserError):
    """A file that is missing or cannot be read as an image; `what` is the reason without the file's name."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(path, what)  # both, so that it can travel from a worker to the main process
        self.path, self.what = path, what

    def __str__(self) -> str:
        return f"{path_text(self.path)} {self.what}"


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file in any format Pillow reads, HEIF too where pillow-heif is installed."""

    path: Path

    def load(self, at_least: int | None = None) -> Image.Image:
        """Return the image as RGB, turned upright by its EXIF tag, what is transparent on white.

        Where `at_least` is given, a JPEG with a short side of twice that or more is decoded at 1/2, 1/4 or 1/8 of its
        size, never below `at_least`. Raises `BadImage` naming a file that is missing or no image.
        """
        return decoded(self.path, self.path, at_least)

    def array(self, at_least: int | None = None) -> np.ndarray:
        """Return the pixels (H,W,3), uint8, of what `load` returns, quicker."""
        return decoded_array(self.path, self.path, at_least)

    def identity(self) -> str:
        """Return a line that changes with the file: its path, size and time of change."""
        status = self.path.stat()
        return f"{self.path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}\n"


def decoded(source: Path | BytesIO, path: Path, at_least: int | None) -> Image.Image:
    """Return what `ImageFile.load` does, of a file or of its content; `path` names what holds it in errors."""
    with _opened(source, path, at_least) as image:
        return upright_rgb(image)


def decoded_array(source: Path | BytesIO, path: Path, at_least: int | None) -> np.ndarray:
    """Return what `ImageFile.array` does, of a file or of its content; `path` names what holds it in errors."""
    with _opened(source, path, at_least) as image:
        pixels = _jpeg_pixels(image)
        if pixels is None:
            stored = _Stored.of(image)
            ImageOps.exif_transpose(image, in_place=True)
            pixels = np.array(_as_rgb(image, stored))
        return pixels


def header_of(content: bytes) -> tuple[str, tuple[int, int]]:
    """Return the format, as Pillow names it, and (width, height) of an image file; its pixels are not decoded.

    Raises `BadImage`, which calls the file "image".
    """
    with _opened(BytesIO(content), Path("image"), None) as image:
        return str(image.format), image.size


@contextmanager
def _opened(source: Path | BytesIO, path: Path, at_least: int | None) -> Iterator[Image.Image]:
    """An image of which only the header has been read; whatever is wrong with it becomes `BadImage`."""
    if isinstance(source, Path) and (other := _other_than_file(source)):
        raise BadImage(path, f"is {other}, not a file")
    needs = _what_heif_needs() if _is_heif(source) else None
    try:
        with Image.open(source) as image:
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            yield image
    except FileNotFoundError:
        raise BadImage(path, "does not exist") from None
    except UnidentifiedImageError as error:
        what = str(error) if source is path else "not of a known format"  # else it names an object in memory
        raise BadImage(path, f"cannot be read as an image ({needs or what})") from None
    except OSError as error:
        if error.errno is not None and not path.is_dir():
            raise  # the disk's trouble, not the image's
        raise BadImage(path, f"cannot be read as an image ({error})") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise whatever their parsing of a damaged file stumbles on
        raise BadImage(path, f"cannot be read as an image ({error})") from None


def _other_than_file(path: Path) -> str | None:
    """What there is instead of a regular file, of which reading might never end; None for a file and for nothing."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device"}
    return kinds.get(stat.S_IFMT(mode))


def _is_heif(source: Path | BytesIO) -> bool:
    if isinstance(source, Path):
        return source.suffix.lower() in (".heic", ".heif")
    return source.getbuffer()[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftyphevc")


@cache
def _what_heif_needs() -> str | None:
    """Register Pillow's HEIF plugin if it is installed, else return what is missing."""
    try:
        import pillow_heif
    except ImportError:
        return "HEIF needs a plugin: pip install pillow-heif"
    pillow_heif.register_heif_opener()
    return None


def _jpeg_pixels(image: Image.Image) -> np.ndarray | None:
    """The pixels of an upright RGB JPEG at the size it has been opened for; None for what is left to Pillow.

    libjpeg-turbo without Pillow's copies: the same pixels in three quarters of the time.
    """
    if image.format != "JPEG" or image.mode != "RGB":  # first of all: a PNG's EXIF data is behind its pixels
        return None
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        return None
    width, height = image.size
    file = image.fp  # type: ignore[attr-defined]  # of images opened from a file
    file.seek(0)
    try:
        return simplejpeg.decode_jpeg(file.read(), min_width=width, min_height=height)
    except ValueError:  # Pillow says what is wrong, or reads what is only odd
        return None


@dataclass(frozen=True, slots=True)
class _Stored:
    """How a file stores its values: its TIFF tags, and whether it has 16 bits per colour channel."""

    tags: Mapping[int, Any]
    deep_colours: bool

    @classmethod
    def of(cls, image: Image.Image) -> _Stored:
        """Return it for an image of which only the header has been read, as decoding discards it."""
        deep = not image.mode.startswith("I") and any(
            ";16" in str(tile.args) for tile in getattr(image, "tile", ())
        )
        return cls(dict(getattr(image, "tag_v2", {})), deep)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return an image as RGB, turned upright by its EXIF tag, what is transparent on white."""
    stored = _Stored.of(image)
    return _as_rgb(ImageOps.exif_transpose(image), stored)


def _as_rgb(image: Image.Image, stored: _Stored) -> Image.Image:
    if image.mode.startswith("I"):
        image = Image.fromarray(_eight_bits(np.asarray(image), stored.tags))
    elif image.mode == "F":
        image = Image.fromarray(_of_floats(np.asarray(image)))
    elif stored.deep_colours:
        image = _of_upper_bytes(image, stored.tags)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


# Bit depths that cameras and microscopes store in 16-bit files.
_DEPTHS = (8, 10, 12, 14, 16)
_BITS_PER_SAMPLE, _PHOTOMETRIC, _MAX_SAMPLE, _SAMPLE_FORMAT = 258, 262, 281, 339  # TIFF 6.0
_WHITE_IS_ZERO, _UNSIGNED = 0, 1


def _eight_bits(values: np.ndarray, tags: Mapping[int, Any]) -> np.ndarray:
    """Values (H,W), uint8, of a grey image of 16 or 32 bits per value.

    They are scaled by the bit depth stated in the file (TIFF's MaxSampleValue), else by the smallest of 8, 10, 12, 14
    and 16 bits, or any larger number, that fits the brightest value: 16-bit files rarely state that they use only 12.
    """
    values = values.astype(np.int64)
    if tags.get(_BITS_PER_SAMPLE) == (32,) and tags.get(_SAMPLE_FORMAT, (_UNSIGNED,)) == (_UNSIGNED,):
        values &= 0xFFFFFFFF  # Pillow reads them as signed
    if values.min() < 0:
        raise UserError(f"it has negative values, down to {values.min()}")
    stated = int(np.max(tags.get(_MAX_SAMPLE, 0)))
    bits = max(int(values.max()), 0 if stated in (0xFFFF, 0xFFFFFFFF) else stated).bit_length()
    scaled = (values >> (next((depth for depth in _DEPTHS if bits <= depth), bits) - 8)).astype(np.uint8)
    # If 0 is white, Pillow inverts values of 8 bits, but not of 16.
    return 255 - scaled if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else scaled


def _of_floats(values: np.ndarray) -> np.ndarray:
    """Values (H,W), uint8, of a floating-point image with values in 0..1, or in those of 8, 10, 12, 14 or 16 bits."""
    low, high = float(values.min()), float(values.max())
    top = next((top for top in (1, *(2**depth - 1 for depth in _DEPTHS)) if high <= top), None)
    if top is None or not low >= 0:  # NaN is neither
        raise UserError(
            f"its floating-point values range from {low:g} to {high:g}; they must lie in 0 to 1, 0 to 255 "
            "or 0 to 65535"
        )
    return np.rint(values * (255 / top)).astype(np.uint8)


def _of_upper_bytes(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """The colours of an image with 16 bits per channel, of which Pillow has read the upper 8.

    Channels that use at most 14 bits are brightened as in grey images; raises `UserError` for at most 12 bits, of which
    only 4 are left.
    """
    stated = int(np.max(tags.get(_MAX_SAMPLE, 0))) >> 8
    brightest = int(np.asarray(image.convert("RGB")).max())
    if 0 < brightest < 1 << (12 - 8):
        raise UserError("it has 16 bits per channel but uses at most 12: save it with 8 bits per channel")
    if max(brightest, 0 if stated == 0xFF else stated) >= 1 << (14 - 8):
        return image
    alpha = image.getchannel("A") if "A" in image.getbands() else None
    image = image.point(lambda value: min(value << 2, 255))
    if alpha is not None:
        image.putalpha(alpha)
    return image


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

    def identity(self) -> str:
        """Return a line that changes with the row, and with the file's path, size and time of change."""
        status = self.path.stat()
        return f"{self.path.absolute()}\0{self.row}\0{status.st_size}\0{status.st_mtime_ns}\n"


@dataclass(frozen=True, slots=True)
class ImageWithFeatures:
    """An image whose features have the name `features` in their store; pixels are for people, and other models."""

    image: ImageSource
    features: str

    def load(self, at_least: int | None = None) -> Image.Image:
        """Return the image itself."""
        return self.image.load(at_least)

    def array(self, at_least: int | None = None) -> np.ndarray:
        """Return the pixels of the image itself."""
        return self.image.array(at_least)

    def identity(self) -> str:
        """Return what identifies the image itself."""
        return self.image.identity()


@lru_cache(maxsize=16)
def _pixels(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")


def bad_image_ends(error: BadImage) -> UserError:
    """Return the error that ends a run at an image that cannot be read."""
    return UserError(
        f"{error}: fix it, or skip such images with data.on_bad_image=skip; `easycap data check` lists them all"
    )
