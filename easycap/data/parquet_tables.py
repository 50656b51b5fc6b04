"""Tables of captions in Parquet files, of which only the needed columns are read."""

from __future__ import annotations

from collections.abc import Container, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from easycap.data.table_batches import MOST_ROWS, Batch
from easycap.errors import UserError
from easycap.utils.extras import check_extra


def parquet_batches(path: Path, unused: Container[str]) -> Iterator[Batch]:
    """Yield the rows of a Parquet file without columns of bytes, and without those in `unused` from then on.

    Raises `UserError` without pyarrow, and for a file that is not Parquet.
    """
    check_extra("parquet", str(path))
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        with pq.ParquetFile(path) as file:
            # Images that are stored in the table itself are for data=huggingface.
            columns = [field.name for field in file.schema_arrow if not _holds_bytes(field.type, pa)]
            for group in range(file.num_row_groups):
                columns = [name for name in columns if name not in unused]
                for batch in file.iter_batches(MOST_ROWS, row_groups=[group], columns=columns):
                    names = [name for name in batch.schema.names if name not in unused]
                    cells = {name: batch.column(name).to_pylist() for name in names}
                    yield Batch(cells, partial(_where_of, path, number))
                    number += batch.num_rows
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is not a Parquet file ({error})") from None


def _where_of(path: Path, first: int, number: int) -> str:
    return f"{path}, row {first + number}"


def _holds_bytes(kind: Any, pa: Any) -> bool:
    if pa.types.is_struct(kind):
        return any(_holds_bytes(kind.field(number).type, pa) for number in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
