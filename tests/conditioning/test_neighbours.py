"""Captions of the training images that look most like an image."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.condition_data import condition_data
from PIL import Image

from easycap.conditioning.draft_sources import RetrievedDraft
from easycap.conditioning.neighbours import Neighbours
from easycap.data.images import ImageFile
from easycap.data.transforms import Transform
from easycap.types import Example, Preprocessing

TRANSFORM = Transform(Preprocessing(4, (0.5,) * 3, (0.25,) * 3))
COLOURS = {"red": (255, 0, 0), "orange": (255, 120, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def encode(images: torch.Tensor) -> torch.Tensor:
    return images.float().mean((2, 3)) + 1


def example(folder: Path, name: str, colour: tuple[int, int, int]) -> Example:
    path = folder / f"{name}.png"
    Image.new("RGB", (6, 6), colour).save(path)
    return Example(name, ImageFile(path), (f"a {name} image", "another caption"))


@pytest.fixture
def training(tmp_path: Path) -> list[Example]:
    return [example(tmp_path, name, colour) for name, colour in COLOURS.items()]


@pytest.fixture
def neighbours(tmp_path: Path, training: list[Example]) -> Neighbours:
    folder = tmp_path / "neighbours"
    folder.mkdir()
    Neighbours.store(folder, training, encode, TRANSFORM, 0)
    return Neighbours(folder, encode, TRANSFORM, 0)


def test_the_nearest_by_cosine_is_found(tmp_path: Path, neighbours: Neighbours) -> None:
    new = [example(tmp_path, "dark", (0, 60, 0)), example(tmp_path, "reddish", (200, 20, 10))]
    assert neighbours(new) == ["a green image", "a red image"]


def test_an_image_is_never_its_own_neighbour(neighbours: Neighbours, training: list[Example]) -> None:
    assert neighbours(training[:2]) == ["a orange image", "a red image"]
    assert neighbours(training[1:2]) == neighbours(training)[1:2]


def test_the_file_of_a_training_image_or_a_copy_is_not_its_own_neighbour(
    tmp_path: Path, neighbours: Neighbours, training: list[Example]
) -> None:
    photo = Example(str(training[1].image.path), training[1].image, ())
    copy = example(tmp_path, "copy", COLOURS["red"])
    assert neighbours([photo, copy]) == ["a red image", "a orange image"]


def test_where_every_training_image_is_the_same_picture_it_is_reported(
    tmp_path: Path, training: list[Example]
) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    Neighbours.store(folder, training[:1], encode, TRANSFORM, 0)
    copy = example(tmp_path, "copy", COLOURS["red"])
    with pytest.raises(ValueError, match="its encoder distinguishes no training image from copy"):
        Neighbours(folder, encode, TRANSFORM, 0)([copy])


def test_features_are_of_length_one_in_half_precision(tmp_path: Path, neighbours: Neighbours) -> None:
    stored = np.load(tmp_path / "neighbours" / "features.npy")
    assert stored.dtype == np.float16 and stored.shape == (4, 3)
    assert np.allclose((stored.astype(float) ** 2).sum(1), 1, atol=1e-2)


def test_a_damaged_folder_is_named(tmp_path: Path, neighbours: Neighbours) -> None:
    (tmp_path / "neighbours" / "captions.json").write_text("[")
    with pytest.raises(ValueError, match="neighbours with the training images' features is damaged"):
        Neighbours(tmp_path / "neighbours", encode, TRANSFORM, 0)


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, neighbours: Neighbours) -> None:
    with pytest.raises(ValueError, match="gone.png does not exist"):
        neighbours([Example("gone", ImageFile(tmp_path / "gone.png"), ())])


def test_each_image_is_looked_up_once(neighbours: Neighbours, training: list[Example]) -> None:
    asked: list[list[str]] = []

    shares = dict.fromkeys(("another", "nothing", "as_tested", "drop", "replace", "swap"), 0.0)
    data = condition_data({"train": training})
    retrieved = RetrievedDraft(data, run=None, encoder="", max_length=9, training=shares)
    retrieved.neighbours = lambda examples: asked.append([e.id for e in examples]) or neighbours(examples)
    retrieved.prepare(training[:3], "test")
    retrieved.prepare(training, "test")
    retrieved.prepare(training[:1], "test")
    assert asked == [["red", "orange", "green"], ["blue"]]
    assert retrieved.test_text(training[0]) == "a orange image"
    assert pickle.loads(pickle.dumps(retrieved)).test_text(training[0]) == "a orange image"
