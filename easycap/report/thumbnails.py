"""The pictures of a page: as data URIs in the page, which is then one file, or as files beside a large page."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from PIL import Image, ImageOps

from easycap.utils.files import is_device, write_atomically

LARGEST_PAGE = 20_000_000  # bytes; of a larger one the pictures are files
_SIDES = (320, 256, 192, 144, 96)  # longest side in pixels; the largest one that the page affords is taken
_BUDGET = 2_000_000  # characters of data URIs in a page
_NUM_TRIED = 12
_SHEET_SIDE = 1024
_AS_IT_IS_BYTES = 12_000
_FILE = re.compile(r"[0-9a-f]{16}\.(png|jpeg)")  # of a folder of pictures, named after their content


class Pictures:
    """Where the pictures of a page go: into the page, or, with the name of a folder, into `files` of that folder."""

    def __init__(self, folder: str = "") -> None:
        self.folder = folder
        self.files: dict[str, bytes] = {}

    @property
    def sources(self) -> str:
        """What the page's policy allows pictures from, beside data URIs."""
        return "file: 'self'" if self.folder else ""

    def address(self, path: Path, side: int) -> str | None:
        """Return the address of a picture of at most `side` pixels; None if the file is not a picture."""
        found = _encode(path, side)
        if found is None:
            return None
        content, kind = found
        if not self.folder:
            return _data_uri(content, kind)
        name = f"{hashlib.sha256(content).hexdigest()[:16]}.{kind.lower()}"
        self.files[name] = content
        return f"{quote(self.folder)}/{name}"

    def sheet(self, path: Path) -> str | None:
        """Return the address of a picture of many panels, which is larger than the others."""
        return self.address(path, _SHEET_SIDE)


def write_page(path: Path, render: Callable[[Pictures], str]) -> None:
    """Write the page that `render` makes, whole or not at all.

    If it has more than LARGEST_PAGE bytes, its pictures are written into a folder beside it (report_files beside
    report.html). Raises `OSError` if it cannot be written.
    """
    pictures, folder = Pictures(), path.with_name(f"{path.stem}_files")
    page = render(pictures)
    if len(page.encode()) > LARGEST_PAGE and not is_device(path):
        pictures = Pictures(folder.name)
        page = render(pictures)
        for name, content in pictures.files.items():
            folder.mkdir(exist_ok=True)
            _write(folder / name, content)
    write_atomically(path, page)
    _remove_unused(folder, pictures.files)


def _write(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)


def _remove_unused(folder: Path, used: Container[str]) -> None:
    """Remove the pictures of an earlier page, and the folder if nothing else was there."""
    unused = [file for file in folder.glob("*") if _FILE.fullmatch(file.name) and file.name not in used]
    for file in unused:
        file.unlink()
    if unused and not any(folder.iterdir()):
        folder.rmdir()


class Thumbnails:
    """Turns image files into small pictures, each file once; the more or richer they are, the smaller."""

    def __init__(self, paths: Iterable[Path | None], pictures: Pictures) -> None:
        found = list(dict.fromkeys(path for path in paths if path is not None))
        affordable = (side for side in _SIDES if pictures.folder or _estimate(found, side) <= _BUDGET)
        self.side = next(affordable, _SIDES[-1])
        self._pictures = pictures
        self._addresses: dict[Path, str | None] = {}

    def address(self, path: Path | None) -> str | None:
        """Return the picture's address, None if there is not a file or it is not a picture."""
        if path is None:
            return None
        if path not in self._addresses:
            self._addresses[path] = self._pictures.address(path, self.side)
        return self._addresses[path]


def _estimate(paths: Sequence[Path], side: int) -> float:
    """Size of all pictures at this side, from some of them: encoding all at every side would take seconds."""
    tried = paths[:: max(1, len(paths) // _NUM_TRIED)]
    lengths = [4 / 3 * len(found[0]) for path in tried if (found := _encode(path, side))]
    return len(paths) * sum(lengths) / max(1, len(tried))


def _encode(path: Path, side: int) -> tuple[bytes, str] | None:
    """The bytes and the format of a picture of at most `side` pixels; None if the file is not a picture."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as picture:
            if (
                picture.format in ("PNG", "JPEG")
                and max(picture.size) <= side
                and len(content) <= _AS_IT_IS_BYTES
            ):
                return content, picture.format
            return _shrink(picture, side), "JPEG"
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
