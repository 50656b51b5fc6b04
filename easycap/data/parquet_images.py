"""Images in Parquet files, on this disk or on the hub: read by row group while training goes on, never kept on disk.

A row group is what can be read of a Parquet file at once, usually 100 or 1,000 images. The sampler goes through them
in windows (see `EpochSampler`), and the last ones read stay in memory.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from easycap.data.arrow_images import contents
from easycap.data.example_table import ExampleTable
from easycap.data.images import BadImage, decoded, decoded_array
from easycap.data.sampler import WINDOW_ROWS, Blocks
from easycap.types import Example

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_ON_HUB = "hf://"


@dataclass(frozen=True, slots=True)
class ParquetImage:
    """An image file whose content is in row `row` of row group `group`, which has `rows`, of a Parquet file.

    `file` is a path, or hf://datasets/OWNER/NAME@COMMIT/PATH.
    """

    file: str
    column: str
    group: int
    row: int
    rows: int

    @property
    def path(self) -> Path:
        """Return the Parquet file, as messages name it."""
        return Path(self.file)

    def load(self, at_least: int | None = None) -> Image.Image:
        """Return what `ImageFile.load` returns of such a file; raises `BadImage` naming the Parquet file."""
        return decoded(self.content(), self.path, at_least)

    def array(self, at_least: int | None = None) -> np.ndarray:
        """Return the pixels (H,W,3), uint8, of what `load` returns."""
        return decoded_array(self.content(), self.path, at_least)

    def identity(self) -> str:
        """Return a line that changes with the row, and with the file's path, size and time of change, or commit."""
        version = ""
        if on_this_disk(self.file):
            status = self.path.stat()
            version = f"{status.st_size}\0{status.st_mtime_ns}"
        return f"{self.file}\0{version}\0{self.group}\0{self.row}\n"

    def group_bytes(self) -> int:
        """Return the bytes that the images of its row group take up in the file, which its end lists."""
        return _bytes_of_groups(self.file, self.column)[self.group]

    def content(self) -> BytesIO:
        """Return the image file; raises `BadImage` if the row has none."""
        content = _last_read.read(self.file, self.column, self.group)[self.row]
        if not content.is_valid:
            raise BadImage(self.path, f"has no image in row {self.row} of row group {self.group}")
        return BytesIO(content.as_buffer())


def blocks_of(examples: Sequence[Example]) -> Blocks | None:
    """Return the blocks that examples lie in, such as row groups; None for images that are read one by one."""
    if isinstance(examples, ExampleTable):
        return examples.blocks()
    if not examples or not isinstance(examples[0].image, ParquetImage):
        return None
    numbers: dict[tuple[str, int], int] = {}
    of, rows = [], []
    for example in examples:
        assert isinstance(example.image, ParquetImage)  # a source's images are of one kind
        key = (example.image.file, example.image.group)
        if key not in numbers:
            rows.append(example.image.rows)
        of.append(numbers.setdefault(key, len(numbers)))
    return Blocks(of, rows)


def is_remote(example: Example) -> bool:
    """Return whether an example's image is read over the network."""
    return isinstance(example.image, ParquetImage) and not on_this_disk(example.image.file)


def on_this_disk(file: str) -> bool:
    """Return whether a Parquet file is not on the hub."""
    return not file.startswith(_ON_HUB)


class _RowGroups:
    """The contents of the row groups read last: two windows of the sampler, as batches lie across their border."""

    def __init__(self) -> None:
        self.kept: OrderedDict[tuple[str, str, int], pa.ChunkedArray] = OrderedDict()
        self.rows = 0
        self.lock = threading.Lock()

    def read(self, file: str, column: str, group: int) -> pa.ChunkedArray:
        key = (file, column, group)
        with self.lock:
            if key not in self.kept:
                self.kept[key] = _read_group(file, column, group)
                self.rows += len(self.kept[key])
                while (
                    len(self.kept) > 1 and self.rows - len(next(iter(self.kept.values()))) >= 2 * WINDOW_ROWS
                ):
                    self.rows -= len(self.kept.popitem(last=False)[1])
            self.kept.move_to_end(key)
            return self.kept[key]


_last_read = _RowGroups()


def _read_group(file: str, column: str, group: int) -> pa.ChunkedArray:
    import pyarrow as pa

    opened = open_parquet(file)
    in_struct = pa.types.is_struct(opened.schema_arrow.field(column).type)
    table = opened.read_row_group(group, columns=[f"{column}.bytes" if in_struct else column])
    return contents(table, column)


def open_parquet(file: str) -> pq.ParquetFile:
    """Return a Parquet file, of which only the end has been read, where its row groups are listed."""
    return _opened(file, os.getpid())


@cache
def _bytes_of_groups(file: str, column: str) -> list[int]:
    found = []
    listed = open_parquet(file).metadata
    for group in map(listed.row_group, range(listed.num_row_groups)):
        columns = map(group.column, range(group.num_columns))
        found.append(
            sum(one.total_compressed_size for one in columns if one.path_in_schema.split(".")[0] == column)
        )
    return found


@lru_cache(maxsize=64)
def _opened(file: str, _process: int) -> pq.ParquetFile:
    # Keyed by process: a connection is not shared with the one that this process was forked from.
    import fsspec
    import pyarrow.parquet as pq

    return pq.ParquetFile(file if on_this_disk(file) else fsspec.open(file, "rb").open())


def read_groups(
    file: str, image: str, columns: Sequence[str]
) -> Iterator[tuple[ParquetImage, dict[str, Any]]]:
    """Yield each row of a Parquet file: its image, whose content is not read, and the values of `columns`.

    Of a struct of images its "path" is read too, under the name of the image column.
    """
    import pyarrow as pa

    opened = open_parquet(file)
    in_struct = pa.types.is_struct(opened.schema_arrow.field(image).type)
    wanted = [*columns, *([f"{image}.path"] if in_struct else [])]
    for group in range(opened.num_row_groups):
        table = opened.read_row_group(group, columns=wanted)
        for row, entry in enumerate(table.to_pylist()):
            if in_struct:
                entry[image] = (entry[image] or {}).get("path")
            yield ParquetImage(file, image, group, row, len(table)), entry
