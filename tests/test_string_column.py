"""Columns of texts give back what they were made of, in any order, and find equal ones."""

from __future__ import annotations

import builtins
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easycap.utils import string_column
from easycap.utils.string_column import StringColumn, first_rows

TEXTS = st.lists(st.text(st.characters(), max_size=5), max_size=9)  # lone surrogates too


@given(TEXTS, st.data())
def test_a_column_gives_back_its_texts(texts: list[str], data: st.DataObject) -> None:
    column = StringColumn.of(texts)
    assert list(column) == texts and len(column) == len(texts) and column[::-1] == texts[::-1]
    assert [column[n] for n in range(-len(texts), 0)] == texts
    rows = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=9)) if texts else []
    taken = pickle.loads(pickle.dumps(column)).take(np.array(rows, np.int64))
    assert list(taken) == [texts[row] for row in rows]


def test_more_rows_than_are_gathered_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(string_column, "_ROWS", 3)
    texts = ["é" * n for n in range(10)]
    column = StringColumn.of(texts)
    assert list(column) == texts and list(column.take(np.arange(10)[::-1])) == texts[::-1]
    with pytest.raises(IndexError):
        column[10]


@pytest.mark.parametrize("hashed", [hash, len, lambda text: 0])
def test_equal_texts_of_a_group_are_found_whatever_their_hashes(
    hashed: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    column = StringColumn.of(["b", "a", "b", "a", "c", "b"])
    with monkeypatch.context() as patched:
        patched.setattr(builtins, "hash", hashed)
        found = first_rows(column, np.array([0, 0, 1, 0, 0, 0]))
    assert found.tolist() == [0, 1, 2, 1, 4, 0]
