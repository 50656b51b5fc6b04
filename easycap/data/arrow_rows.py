"""The rows of an Arrow file with images: where each image lies, what it is called, and its captions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from easycap.data.arrow_images import ArrowImage, contents, open_table
from easycap.data.cells import column_of, is_column_of, is_pattern, texts_of, values_at
from easycap.data.images import ImageFile
from easycap.data.parquet_images import ParquetImage, on_this_disk, open_parquet, read_groups
from easycap.errors import UserError
from easycap.utils.cache import cached_dir
from easycap.utils.paths import cache_dir
from easycap.utils.progress_bar import Progress

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 10_000  # read at a time
# What stands before a set's own paths where the library keeps files of the hub, and those of archives.
_IN_CACHE = re.compile(r".*/(?:snapshots/[0-9a-f]{40}|extracted/[0-9a-f]{64})/")


class Columns(NamedTuple):
    """Columns of a set: `caption` may be a path in a column; `id` is the one that must be used, `name` one that may;
    `fields` are those whose values scores can be grouped by.
    """

    image: str
    caption: str
    id: str | None
    name: str | None
    fields: tuple[str, ...] = ()

    def needed(self, names: Sequence[str]) -> list[str]:
        """Return those of a file's columns `names` that rows are made of, without the images."""
        used = {column_of(self.caption, names), self.id, self.name, *self.fields} - {self.image}
        pattern = self.caption if is_pattern(self.caption) else None
        return [name for name in names if name in used or (pattern and is_column_of(name, pattern))]

    def row(
        self,
        file: Path,
        number: int,
        entry: Mapping[str, Any],
        key: str,
        name: str | None,
        image: ImageFile | ArrowImage | ParquetImage | None,
    ) -> Row:
        """Return a row; `name` is what its image is called if no column says so."""
        named = entry[self.id] if self.id else entry.get(self.name or "", name)
        captions, fault = [], None
        try:
            captions = [text for cell in values_at(entry, self.caption) for text in texts_of(cell)]
        except UserError as error:
            fault = f"has a caption that {error}"
        fields = {field: str(entry[field]) for field in self.fields if entry[field] is not None}
        return Row(file, number, key, "" if named is None else str(named), image, captions, fields, fault)


class Row(NamedTuple):
    """One row: `key` tells its image from others, `name` is what it is called, "" if nothing; `number` is from 0.

    `fault` says what is wrong with its captions, of which there are then none.
    """

    file: Path
    number: int
    key: str
    name: str
    image: ImageFile | ArrowImage | ParquetImage | None
    captions: list[Any]
    fields: Mapping[str, str]
    fault: str | None = None


def read_rows(file: Path, columns: Columns, root: Path) -> Iterator[Row]:
    """Yield the rows of an Arrow file; image files that it only names are in the folder `root`, or have whole paths."""
    table = open_table(file)
    digests = image_digests(file, columns.image)
    paths = _paths(table, columns.image)
    texts = table.select(columns.needed(table.column_names))
    number = 0
    for start in range(0, len(texts), _ROWS):
        for entry in texts.slice(start, _ROWS).to_pylist():
            path, digest = paths[number].as_py() if paths is not None else None, digests[number]
            image: ImageFile | ArrowImage | None = None
            key = f"{file.name}#{number}"
            if digest:
                key = f"{digest:016x}"
                image = ArrowImage(file, columns.image, number, key)
            elif path:
                image = ImageFile(root / path)
                key = _relative(image.path, root)
            name = path and _relative(Path(path), root)
            yield columns.row(file, number, entry, key, name, image)
            number += 1


def streamed_rows(file: str, columns: Columns, root: Path) -> Iterator[Row]:
    """Yield the rows of a Parquet file without its images; each is an image of its own unless `columns.id` is set."""
    wanted = columns.needed(open_parquet(file).schema_arrow.names)
    place = _relative(Path(file), root) if on_this_disk(file) else file.partition("@")[2].partition("/")[2]
    for number, (image, entry) in enumerate(read_groups(file, columns.image, wanted)):
        named = entry[columns.id] if columns.id else None
        key = f"{place}#{number}" if named is None else str(named)
        yield columns.row(image.path, number, entry, key, entry.get(columns.image), image)


def _relative(path: Path, root: Path) -> str:
    """A path as it is called within `root`, or within the set's folder in the library's cache."""
    if not path.is_absolute():
        return path.as_posix()
    try:
        return path.relative_to(root.absolute()).as_posix()
    except ValueError:
        return _IN_CACHE.sub("", path.as_posix())


def _paths(table: pa.Table, column: str) -> pa.ChunkedArray | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    images = table.column(column)
    return pc.struct_field(images, "path") if pa.types.is_struct(images.type) else None


def image_digests(file: Path, column: str) -> np.ndarray:
    """Return 64 bits of the content of each row's image (N,), 0 where there is none.

    They are computed once and kept in the user's cache until the file changes.
    """
    status = file.stat()
    what = f"{file.absolute()}\0{column}\0{status.st_size}\0{status.st_mtime_ns}"
    folder = cache_dir() / "image_digests" / hashlib.blake2b(what.encode(), digest_size=8).hexdigest()
    cached_dir(folder, lambda new: np.save(new / "digests.npy", _digests(file, column)))
    return np.load(folder / "digests.npy")


def _digests(file: Path, column: str) -> np.ndarray:
    found = contents(open_table(file), column)
    digests = np.zeros(len(found), np.uint64)
    with Progress("reading every image once", len(found)) as bar:
        for number, content in enumerate(found):
            if content.is_valid:
                digests[number] = (
                    int.from_bytes(hashlib.blake2b(content.as_buffer(), digest_size=8).digest()) or 1
                )
            bar.advance(1)
    return digests
