"""Rows of a batch that need no check one by one: image name, split and text, each in a column of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from easycap.data.data_splits import SPLITS
from easycap.data.record_table import NO_SPLIT
from easycap.data.table_batches import Batch
from easycap.data.table_columns import TableColumns, split_named
from easycap.data.table_ids import id_of
from easycap.data.table_settings import RESTVAL, Ids, TableSettings

_PLAIN = {str, int, float, bool, type(None)}


class PlainRows(NamedTuple):
    """Names, places in `SPLITS` or `NO_SPLIT`, ids (None: the names) and captions of N rows."""

    names: Sequence[str]
    splits: Sequence[int]
    ids: Sequence[str] | None
    captions: Sequence[str]


def plain_rows(
    batch: Batch, columns: TableColumns, settings: TableSettings, split: str | None, below: str
) -> PlainRows | None:
    """Return the rows of a batch, None unless reading them one by one finds nothing else.

    `split` is that of the table, and `below` the folder that its names are below.
    """
    found = batch.columns
    used = (columns.image, columns.caption, columns.split, settings.id_column)
    if not found or settings.rejected_column or settings.fields or any(c and c not in found for c in used):
        return None
    if settings.fields is None and any(set(map(type, cells)) - _PLAIN for cells in found.values()):
        return None
    cells: Sequence[Any] = found[columns.image]
    texts: Sequence[Any] = found[columns.caption]
    if set(map(type, cells)) != {str} or set(map(type, texts)) != {str}:
        return None
    names, captions = [cell.strip() for cell in cells], [text.strip() for text in texts]
    if not all(names) or not all(captions) or any(caption[0] == "[" for caption in captions):
        return None
    if any("\\" in name or name[:2] == "./" for name in names):
        names = [name.replace("\\", "/").removeprefix("./") for name in names]
    names = [f"{below}/{name}" for name in names] if below else names
    splits = _splits(found[columns.split], settings) if columns.split and not split else None
    if splits is None:
        if columns.split and not split:
            return None
        splits = [SPLITS.index(split) if split else NO_SPLIT] * len(names)
    if settings.id_column is None and settings.ids is Ids.as_is:
        return PlainRows(names, splits, None, captions)
    values = found[settings.id_column] if settings.id_column else names
    ids = [id_of(value, name, settings.ids) for value, name in zip(values, names, strict=True)]
    given = [one for one in ids if one is not None]
    if len(given) < len(ids) or any(value is None for value in values):
        return None
    return PlainRows(names, splits, given, captions)


def _splits(words: Sequence[Any], settings: TableSettings) -> list[int] | None:
    """The places in `SPLITS` of splits that all are known and read, else None."""
    places: dict[Any, int] = {}
    for word in set(words):
        split = split_named(word) if word is not None else None
        if split is None or (str(word).strip() == RESTVAL and not settings.restval):
            return None
        places[word] = SPLITS.index(split)
    return [places[word] for word in words]
