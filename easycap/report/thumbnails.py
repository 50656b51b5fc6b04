"""Pictures put into a page as data URIs, small enough that the page stays one file of a few megabytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageOps

_SIDES = (320, 256, 192, 144, 96)  # longest side in pixels; the largest one that the page affords is taken
_BUDGET = 2_000_000  # characters of data URIs in a page
_NUM_TRIED = 12
_SHEET_SIDE = 1024
_AS_IT_IS_BYTES = 12_000


class Thumbnails:
    """Turns image files into data URIs, each file once; the more or richer they are, the smaller."""

    def __init__(self, paths: Iterable[Path | None]) -> None:
        found = list(dict.fromkeys(path for path in paths if path is not None))
        self.side = next((side for side in _SIDES if _estimate(found, side) <= _BUDGET), _SIDES[-1])
        self._uris: dict[Path, str | None] = {}

    def uri(self, path: Path | None) -> str | None:
        """Return the picture as a data URI, None if there is not a file or it is not a picture."""
        if path is None:
            return None
        if path not in self._uris:
            self._uris[path] = _encode(path, self.side)
        return self._uris[path]


def sheet_uri(path: Path) -> str | None:
    """Return a picture of many panels as a data URI, larger than the others; None if it is not a picture."""
    return _encode(path, _SHEET_SIDE)


def _estimate(paths: Sequence[Path], side: int) -> float:
    """Size of all pictures at this side, from some of them: encoding all at every side would take seconds."""
    tried = paths[:: max(1, len(paths) // _NUM_TRIED)]
    lengths = [len(_encode(path, side) or "") for path in tried]
    return len(paths) * sum(lengths) / max(1, len(lengths))


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
