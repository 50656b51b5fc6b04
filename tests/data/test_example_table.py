"""A table of examples is what a list of them is, and processes share it; images are found where names say."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers.small_data import write_images

from easycap.data import image_places
from easycap.data.example_table import Captions, CodedColumn, ExampleColumns, ExampleTable, FilesBelow
from easycap.data.image_index import ImageIndex
from easycap.data.image_places import ImagePlaces
from easycap.data.images import ImageFile
from easycap.data.packed import shareable
from easycap.types import Example
from easycap.utils.string_column import StringColumn

ROOT = Path("photos")
EXAMPLES = [
    Example("a", ImageFile(ROOT / "x/a.jpg"), ("a dog", "a café\u2028here"), fields={"place": "sea"}),
    Example("b", ImageFile(ROOT / "x/b.jpg"), ("a cat",), fields={"place": "land", "size": "9"}),
    Example("c", ImageFile(ROOT / "y/c.jpg"), ()),
]
COLUMNS = ExampleColumns(
    StringColumn.of("abc"),
    FilesBelow(ROOT, StringColumn.of(["x/a.jpg", "x/b.jpg", "y/c.jpg"])),
    StringColumn.of(["a dog", "a café\u2028here", "a cat"]),
    np.array([0, 2, 3, 3]),
    {
        "place": CodedColumn(np.array([1, 0, -1]), ["land", "sea"]),
        "size": CodedColumn(np.array([-1, 0, -1]), ["9"]),
    },
)
TABLE = ExampleTable(COLUMNS, np.arange(3))


def test_a_table_is_the_list_of_its_examples() -> None:
    assert TABLE == EXAMPLES and list(TABLE) == EXAMPLES and TABLE[-1] == EXAMPLES[-1]
    assert TABLE[1:] == EXAMPLES[1:] and TABLE[::-1] == EXAMPLES[::-1] and EXAMPLES[:2] != TABLE
    assert [dict(one.fields) for one in TABLE] == [dict(one.fields) for one in EXAMPLES]
    assert pickle.loads(pickle.dumps(TABLE)) == EXAMPLES
    with pytest.raises(IndexError):
        TABLE[3]
    assert shareable(TABLE) is TABLE


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1]])
def test_captions_are_those_of_the_examples_in_their_order(order: list[int]) -> None:
    table, examples = TABLE.select(np.array(order)), [EXAMPLES[place] for place in order]
    wanted = [text for example in examples for text in example.references]
    for captions in (Captions(table), Captions(examples)):
        assert list(captions) == wanted == list(captions)
        assert len(captions) == len(wanted) and "a cat" in captions and "a bus" not in captions


NAMES = [
    "x/a.jpg",
    "./x/a.jpg",
    "x\\b.PNG",
    "a",
    "b.png",
    "c.jpg",
    "d",
    "train/1.jpg",
    "1.jpg",
    "x",
    "x//a.jpg",
]
NAMES += [".hidden/a.jpg", "x/.a.jpg", "notes.txt", "../x/a.jpg", "folder.jpg", "", "none/a.jpg", "Ä.jpg"]


@pytest.mark.parametrize("split", [None, "train", "val"])
@pytest.mark.parametrize("folder", ["", "x", "val"])
def test_images_are_those_that_the_index_finds(tmp_path: Path, folder: str, split: str | None) -> None:
    files = [
        "x/a.jpg",
        "x/b.PNG",
        "y/c.jpg",
        "train/1.jpg",
        "val/1.jpg",
        ".hidden/a.jpg",
        "x/.a.jpg",
        "Ä.jpg",
    ]
    write_images(tmp_path, *files)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.jpg").mkdir()
    wanted = ImageIndex(tmp_path).find(NAMES, folder, split)
    paths, found = ImagePlaces(tmp_path).find(StringColumn.of(NAMES), folder, split)
    there = {
        name: tmp_path / path for name, path, is_there in zip(NAMES, paths, found, strict=True) if is_there
    }
    assert there == wanted and "x/a.jpg" in wanted
    assert [ImagePlaces(tmp_path).knows(name, folder, split) for name in NAMES] == [
        ImageIndex(tmp_path).knows(name, folder, split) for name in NAMES
    ]


def test_names_that_are_paths_are_found_without_listing_all_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, "x/a.jpg", "y/b.jpg", "c.jpg")
    monkeypatch.setattr(image_places, "ImageIndex", lambda root: pytest.fail("all images are listed"))
    names = StringColumn.of(["y/b.jpg", "c.jpg", "x/a.jpg"])
    paths, found = ImagePlaces(tmp_path).find(names, "", None)
    assert paths is names and found.all()
