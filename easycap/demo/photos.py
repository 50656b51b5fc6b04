"""Photos as they are uploaded: checked before they are decoded, and shown as the model reads them."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

from PIL import Image

from easycap.data.image_inputs import ImageBytes
from easycap.data.images import header_of
from easycap.errors import UserError

# Pillow also opens formats that start other programs (EPS) or fetch files (fonts, scientific containers).
_FORMATS = frozenset("JPEG MPO PNG WEBP GIF BMP DIB TIFF JPEG2000 AVIF HEIF PPM TGA".split())
_PREVIEW_SIDE = 1024  # pixels


class Limits(NamedTuple):
    """What an upload may have at most: `bytes` as it is sent, `pixels` once it is decoded."""

    bytes: int
    pixels: int


class Photo(NamedTuple):
    """A photo that may be decoded: the `content` of its file, and `preview`, upright and small enough for a page."""

    content: bytes
    preview: Image.Image

    def data_uri(self) -> str:
        """Return the preview as the address of an <img>."""
        buffer = io.BytesIO()
        self.preview.save(buffer, "JPEG", quality=88)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def read_photo(content: bytes, limits: Limits) -> Photo:
    """Return the photo in an uploaded file; `UserError` if it is not one, or has more pixels than allowed."""
    kind, (width, height) = header_of(content)
    if kind not in _FORMATS:
        raise UserError(f"the format {kind} is not read here: save the image as JPEG or PNG")
    if width * height > limits.pixels:
        raise UserError(
            f"image has {width} x {height} pixels; at most {limits.pixels / 1e6:g} million are read: make it smaller"
        )
    preview = ImageBytes(content).load(_PREVIEW_SIDE)
    preview.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE), Image.Resampling.LANCZOS)
    return Photo(content, preview)
