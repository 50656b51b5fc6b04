"""Image ids as people write them: found where one image alone can be meant."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easycap.utils.ids import KnownIds, plain_number, without_suffix


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("139", "000000000139.jpg"),
        ("000000000139", "139"),
        ("139.0", "139"),
        ("COCO_val2014_000000000139.jpg", "139"),
        ("0001", "0001.JPG"),
        ("a.jpg", "a.JPG"),
        ("A.jpeg", "a.jpg"),
        ("sub\\a.jpg", "sub/a.jpg"),
        ("./sub//a.jpg", "sub/a.jpg"),
        (" a.jpg ", "a.jpg"),
        ("im/a.jpg", "a.jpg"),
        ("/home/me/im/sub/a.jpg", "sub/a.jpg"),
        ("a.jpg", "sub/a.jpg"),
        ("139.0", "sub/000000000139.jpg"),
        ("val2017/000000000139.jpg", "139"),
        (unicodedata.normalize("NFC", "café.jpg"), unicodedata.normalize("NFD", "café.jpg")),
        (unicodedata.normalize("NFD", "Straße é.jpg"), unicodedata.normalize("NFC", "straße é.jpg")),
    ],
)
def test_a_name_that_can_mean_one_image_alone_is_found(name: str, known: str) -> None:
    assert KnownIds([known, "other.jpg", "7"]).resolve([name]) == {name: known}


@pytest.mark.parametrize(
    ("names", "known"),
    [
        (["a"], ["a.jpg", "a.png"]),
        (["A.jpg"], ["a.jpg", "a.JPG"]),
        (["x/a.jpg", "y/a.jpg"], ["a.jpg"]),
        (["x/a.jpg", "a.jpg"], ["a.jpg"]),
        (["a.jpg"], ["x/a.jpg", "y/a.jpg"]),
        (["x/a.jpg"], ["y/a.jpg"]),
        (["x/139.jpg"], ["y/000139.jpg"]),
        (["139", "x/139"], ["x/139"]),
        (["b.jpg"], ["a.jpg"]),
        (["1390"], ["139"]),
        (["1.5"], ["1", "5"]),
    ],
)
def test_what_could_be_two_images_or_none_is_not_guessed(names: list[str], known: list[str]) -> None:
    found = KnownIds(known).resolve(names)
    assert found == {name: name for name in names if name in known}


def test_further_names_of_an_id_and_what_might_have_been_meant() -> None:
    known = KnownIds(["1", "2"], {"dog.jpg": "1", "cat.jpg": "2"})
    assert known.resolve(["DOG.jpg", "cow.jpg"]) == {"DOG.jpg": "1"}
    assert KnownIds(["a.jpg", "a.png"]).suggestion("a") == "; did you mean 'a.jpg' or 'a.png'?"
    assert KnownIds(["photo_1.jpg"]).suggestion("foto_1.jpg") == "; did you mean 'photo_1.jpg'?"
    assert KnownIds(["photo_1.jpg"]).suggestion("x") == ""


@pytest.mark.parametrize(
    "value", [139, 139.0, "139", "139.0", "000000000139", "COCO_train2014_000000000139.jpg"]
)
def test_a_number_however_it_is_written(value: object) -> None:
    assert plain_number(value) == "139"


@pytest.mark.parametrize("value", [True, None, 1.5, "", "-3", "1e3", "a1", [1]])
def test_what_is_no_number(value: object) -> None:
    assert plain_number(value) is None


def test_endings_of_images_alone_are_cut() -> None:
    assert [without_suffix(name) for name in ("a.JPG", "v1.2", "a.b.heic", ".jpg")] == [
        "a",
        "v1.2",
        "a.b",
        "",
    ]


_NAMES = st.lists(st.text(st.sampled_from("aAé/\\.0 1jpg"), max_size=12), max_size=8)


@given(_NAMES, _NAMES)
def test_what_is_found_is_known_and_known_names_mean_themselves(names: list[str], known: list[str]) -> None:
    ids = KnownIds(known)
    found = ids.resolve(names)
    assert set(found.values()) <= set(known) and set(found) <= set(names)
    assert all(found[name] == name for name in names if name in ids.known)
    assert all(isinstance(ids.suggestion(name), str) for name in names)
