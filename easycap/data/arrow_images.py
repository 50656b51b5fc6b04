"""Images in Arrow files, as the library datasets keeps them on disk: decoded when needed, never copied."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from easycap.data.images import decoded, decoded_array

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class ArrowImage:
    """An image file whose content is in row `row` of `column` of an Arrow file; `digest` is that of the content.

    It holds no data, so that a process that loads images gets the place alone and maps the file itself.
    """

    path: Path
    column: str
    row: int
    digest: str

    def load(self, at_least: int | None = None) -> Image.Image:
        """Return what `ImageFile.load` returns of such a file; raises `BadImage` naming the Arrow file."""
        return decoded(self.content(), self.path, at_least)

    def array(self, at_least: int | None = None) -> np.ndarray:
        """Return the pixels (H,W,3), uint8, of what `load` returns."""
        return decoded_array(self.content(), self.path, at_least)

    def identity(self) -> str:
        """Return a line that changes with the content, wherever it is stored."""
        return f"{self.digest}\n"

    def content(self) -> BytesIO:
        """Return the image file."""
        import pyarrow as pa

        image = open_table(self.path).column(self.column)[self.row]  # this row alone, not its column
        content = image["bytes"] if isinstance(image, pa.StructScalar) else image
        return BytesIO(content.as_buffer())


@lru_cache(maxsize=256)
def open_table(path: Path) -> pa.Table:
    """Return an Arrow file as a table whose columns stay on disk until read."""
    import pyarrow as pa  # an extra

    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


def contents(table: pa.Table, column: str) -> pa.ChunkedArray:
    """Return the content of the image files in a column: binary itself, or the field "bytes" of a struct."""
    import pyarrow as pa
    import pyarrow.compute as pc

    images = table.column(column)
    return pc.struct_field(images, "bytes") if pa.types.is_struct(images.type) else images
