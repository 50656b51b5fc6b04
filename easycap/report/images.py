"""Pictures put into a page as data URIs, small enough that the page stays one file of a few megabytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageOps

# Longest side in pixels, and the number of different pictures up to which a page affords it (2 MB in all).
_SIDES = ((320, 60), (240, 110), (192, 200), (128, 500))
_SMALLEST_SIDE = 96
_AS_IT_IS_BYTES = 12_000


class Thumbnails:
    """Turns image files into data URIs, each file once; more pictures in a page means smaller ones."""

    def __init__(self, paths: Iterable[Path | None]) -> None:
        count = len({path for path in paths if path is not None})
        self.side = next((side for side, limit in _SIDES if count <= limit), _SMALLEST_SIDE)
        self._uris: dict[Path, str | None] = {}

    def uri(self, path: Path | None) -> str | None:
        """Return the picture as a data URI, None if there is no file or it is no picture."""
        if path is None:
            return None
        if path not in self._uris:
            self._uris[path] = _encode(path, self.side)
        return self._uris[path]


def _encode(path: Path, side: int) -> str | None:
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as picture:
            if (
                picture.format in ("PNG", "JPEG")
                and max(picture.size) <= side
                and len(content) <= _AS_IT_IS_BYTES
            ):
                return _data_uri(content, picture.format)
            return _data_uri(_shrink(picture, side), "JPEG")
    # Pillow answers broken files with more than OSError; one broken picture must not cost the page.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _shrink(picture: Image.Image, side: int) -> bytes:
    picture = ImageOps.exif_transpose(picture).convert("RGB")
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82, optimize=True)
    return buffer.getvalue()


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode('ascii')}"
