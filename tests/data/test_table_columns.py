"""Cells and columns of tables: lists in any notation are read as lists; a column is guessed only if one fits."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easycap.data.cells import texts_of, values_at
from easycap.data.table_columns import guess_caption, guess_columns, samples_of
from easycap.errors import UserError

CAPTIONS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\0")), min_size=1)


@given(CAPTIONS)
def test_a_list_written_as_json_or_as_python_is_the_list(captions: list[str]) -> None:
    for cell in (captions, json.dumps(captions), json.dumps(captions, ensure_ascii=False), repr(captions)):
        assert texts_of(cell) == captions


def test_a_list_as_numpy_prints_it_is_not_joined() -> None:
    captions = ["a dog's day", 'a "red" bus', "two cats"]
    assert texts_of(str(np.array(captions))) == captions


@pytest.mark.parametrize("text", ["[a dog] runs", "a dog", "", "[1] a man", "['quoted'] in a sign's middle"])
def test_a_sentence_in_brackets_stays_a_sentence(text: str) -> None:
    assert texts_of(text) == [text]


@pytest.mark.parametrize("text", ['["a dog", "a ca', "['a dog' ... 'a cat']", '["a dog", 3 cats]'])
def test_a_list_that_was_cut_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="begins like a list"):
        texts_of(text)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("sentences[].raw", ["a", "b"]),
        ("sentences[-1].raw", ["b"]),
        ("views[0]", ["x.png"]),
        ("views[2]", []),
        ("meta.title", ["t"]),
        ("a.b", [1]),
        ("caption_*", ["c", "d", 7]),
        ("caption_#", ["c", "d"]),
        ("meta.none", []),
        ("gone.title", []),
    ],
)
def test_a_path_leads_to_values(path: str, values: list[Any]) -> None:
    entry = {
        **{"sentences": [{"raw": "a"}, {"raw": "b"}, {"other": 1}], "views": ["x.png", "y.png"]},
        **{
            "meta": {"title": "t", "none": None},
            "a.b": 1,
            "caption_0": "c",
            "caption_1": "d",
            "caption_id": 7,
        },
    }
    entry["sentences"] = entry["sentences"][:2]
    assert values_at(entry, path) == values


ROWS = [
    ({"file_name": "{}.png", "text": "a dog runs"}, ("file_name", "text", None)),
    ({"id": "ROCO_{}", "name": "PMC{}.jpg", "caption": "an x-ray of it"}, ("name", "caption", None)),
    (
        {"raw": '["a dog runs", "a dog"]', "sentids": "[1, 2]", "split": "val", "filename": "{}.jpg", "img_id": "{}"},
        ("filename", "raw", "split"),
    ),
    ({"image": "{}.jpg", "caption_0": "a dog", "caption_1": "a cat"}, ("image", "caption_#", None)),
    ({"views": ["{}/0.png", "{}/1.png"], "report": "no finding", "part": "train"}, ("views[0]", "report", "part")),
    ({"filename": "{}.jpg", "sentences": [{"raw": "a dog", "sentid": 1}], "split": "restval"},
     ("filename", "sentences[].raw", "split")),
    ({"pic": "{}.jpg", "url": "http://x/{}.jpg", "words": "a dog runs there"}, ("pic", "words", None)),
    ({"Bild": "{}.jpg", "Beschreibung": "ein Hund läuft", "Nr": 3}, ("Bild", "Beschreibung", None)),
    ({"image_id": "{}.jpg", "caption": ["一只狗在草地上奔跑"]}, ("image_id", "caption", None)),
    ({"image": "{}.jpg", "title": "dog", "caption": "a dog runs there"}, ("image", "caption", None)),
    ({"imageName": "{}.jpg", "说明": "一只狗在草地上奔跑"}, ("imageName", "说明", None)),
]  # fmt: skip


@pytest.mark.parametrize(("row", "columns"), ROWS)
def test_the_columns_are_found(row: dict[str, Any], columns: tuple[str, ...]) -> None:
    rows = [json.loads(json.dumps(row).replace("{}", str(n))) for n in range(5)]
    assert guess_columns(samples_of(rows), where="t") == columns


def test_of_two_columns_the_one_whose_images_are_there() -> None:
    samples = {"id": ["R_0", "R_1"], "name": ["P0.jpg", "P1.jpg"], "caption": ["a b c", "d e f"]}
    assert guess_columns(samples, where="t", is_image=lambda name: name.startswith("R_")).image == "id"


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (
            {"left": ["a.jpg"], "right": ["b.jpg"], "text": ["a b"]},
            "'left' and 'right' could each be the image",
        ),
        (
            {"file": ["a.jpg"], "en": ["a dog runs"], "de": ["ein Hund läuft"]},
            "data.caption_column to one of them",
        ),
        (
            {"file": ["a.jpg"], "n": [3]},
            "no column is recognised as the captions; set data.caption_column to one",
        ),
        ({"x": [1.5], "text": ["a dog runs"]}, "no column is recognised as the image"),
    ],
)
def test_several_or_no_candidates_are_named(samples: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        guess_columns(samples, where="t")


def test_what_is_given_is_not_guessed() -> None:
    samples = {"file": ["a.jpg"], "en": ["a dog runs"], "de": ["ein Hund läuft"]}
    assert guess_columns(samples, where="t", caption="de") == ("file", "de", None)


@pytest.mark.parametrize("wordless", ["😀", "."])
def test_a_caption_without_words_does_not_hide_its_column(wordless: str) -> None:
    samples = {"image": ["1.jpg", "2.jpg"], "caption": ["a dog runs", wordless]}
    assert guess_caption(samples, where="c.csv") == "caption"
