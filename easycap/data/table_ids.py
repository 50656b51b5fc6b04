"""The ids of images that tables name, in the form that `data.ids` asks for."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import numpy as np

from easycap.data.table_settings import Ids
from easycap.utils.ids import plain_number
from easycap.utils.string_column import StringColumn


def id_of(value: Any, name: str, form: Ids) -> str | None:
    """Return the id of the image `name` from the value of its id column, None if there is none.

    Where numbers are asked for and the column is empty, the number in COCO's file names is taken.
    """
    if form is Ids.number:
        number = plain_number(PurePosixPath(name).name) if value is None else plain_number(value)
        return number if number is not None or value is None else str(value)
    if value is None:
        return None
    return PurePosixPath(str(value)).stem if form is Ids.stem else str(value)


def rank_of_ids(ids: StringColumn) -> np.ndarray:
    """Return the place (N,) of each id in their order: numbers by value, then texts."""
    texts = list(ids)
    keys = [(0, int(text), "") if text.isdecimal() else (1, 0, text) for text in texts]
    rank = np.empty(len(texts), np.int64)
    rank[sorted(range(len(texts)), key=keys.__getitem__)] = np.arange(len(texts))
    return rank
