"""A data set of the library datasets: its splits, its columns and its rows, stored on this disk or streamed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easycap.data.arrow_rows import Columns, Row, read_rows, streamed_rows
from easycap.data.hub_columns import is_image
from easycap.data.hub_datasets import library, open_splits, parquet_files
from easycap.data.parquet_images import open_parquet
from easycap.utils.paths import expanded

if TYPE_CHECKING:
    import datasets

_SAMPLES = 200  # rows that columns are guessed from


class StoredSet:
    """A set in Arrow files on this disk; see `open_splits`."""

    def __init__(self, path: str, config: str | None, revision: str | None) -> None:
        self.root = expanded(path)
        self.splits = open_splits(path, config, revision)
        self.first = next(iter(self.splits.values()))

    @property
    def features(self) -> datasets.Features:
        """Return the type of each column."""
        return self.first.features

    def first_entries(self) -> Iterator[dict[str, Any]]:
        """Yield the first rows without their images."""
        plain = self.first.select_columns(
            [name for name, kind in self.features.items() if not is_image(kind)]
        )
        yield from plain.select(range(min(len(plain), _SAMPLES)))

    def rows(self, split: str, columns: Columns) -> Iterator[Row]:
        """Yield the rows of one of the set's own splits."""
        for file in self.splits[split].cache_files:
            yield from read_rows(Path(file["filename"]), columns, self.root)


class StreamedSet:
    """A set in Parquet files on this disk or on the hub, read as far as it is needed; see `parquet_files`."""

    def __init__(self, path: str, config: str | None, revision: str | None) -> None:
        self.root = expanded(path)
        self.splits = parquet_files(path, config, revision)
        self.first = next(iter(self.splits.values()))[0]

    @property
    def features(self) -> datasets.Features:
        """Return the type of each column."""
        return library().Features.from_arrow_schema(open_parquet(self.first).schema_arrow)

    def first_entries(self) -> Iterator[dict[str, Any]]:
        """Yield the first rows without their images."""
        plain = [name for name, kind in self.features.items() if not is_image(kind)]
        batches = open_parquet(self.first).iter_batches(_SAMPLES, columns=plain)
        yield from islice((row for batch in batches for row in batch.to_pylist()), _SAMPLES)

    def rows(self, split: str, columns: Columns) -> Iterator[Row]:
        """Yield the rows of one of the set's own splits."""
        for file in self.splits[split]:
            yield from streamed_rows(file, columns, self.root)
