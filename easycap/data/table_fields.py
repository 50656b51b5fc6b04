"""The columns of tables that scores may be grouped by, and those that no longer need to be read."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from easycap.data.cells import column_of, is_column_of, is_pattern, parts_of, paths_of, values_at
from easycap.data.json_tables import KEY, VALUE
from easycap.data.record_table import RecordRows
from easycap.data.table_batches import Batch


class TableFields:
    """Adds fields to `rows`: those that are `asked` for, or where that is None all columns that are not used."""

    def __init__(self, rows: RecordRows, asked: Sequence[str] | None) -> None:
        self.rows, self.asked = rows, asked
        self.columns: set[str] = set()  # of the first entry
        self.unused: set[str] = set()  # columns of the table being read that need not be read any more
        self._used: list[str] = []
        self._not_fields: set[str] = set()  # columns of that table that are not fields

    def begin_table(self) -> None:
        """Forget what is unused, as another table is read."""
        self.unused = set()

    def use(self, paths: Iterable[str | None]) -> None:
        """Columns that the table being read is used for."""
        self._used = [part for path in paths for part in parts_of(path or "")]
        self._not_fields = {KEY, VALUE, *self._used}

    def keep(self, values: Mapping[str, Any]) -> None:
        """Add the fields of an entry to the last row."""
        if not self.columns:
            self.columns = {name for name, _ in paths_of(values)}
        for name in self.asked or ():
            if found := values_at(values, name):
                self.rows.add_field(name, found[0])
        if self.asked is None and not values.keys() <= self._not_fields:
            for name, value in paths_of(values):
                if name not in self._not_fields and not self.rows.add_field(name, value):
                    self._drop(name, values)

    def keep_columns(self, batch: Batch, begin: int) -> None:
        """Add the fields of plain rows, of which the first is row `begin`."""
        self.columns = self.columns or set(batch.columns)
        for name, values in batch.columns.items() if self.asked is None else ():
            rows = enumerate(values, begin) if name not in self._not_fields else ()
            if not all(self.rows.add_field(name, value, row) for row, value in rows):
                self._drop(name, batch.columns)

    def _drop(self, name: str, there: Container[str]) -> None:
        """Stop keeping a column, and reading it unless it is used otherwise."""
        self._not_fields.add(name)
        for path in self._used:
            if column_of(path, there) == name or (is_pattern(path) and is_column_of(name, path)):
                return
        self.unused.add(name)
