"""Captions of the training images that look most like an image."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

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
SHARES = dict.fromkeys(("another", "nothing", "as_tested", "drop", "replace", "swap"), 0.0)
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
    return Neighbours(folder, encode, TRANSFORM, 0, count=1)


def test_the_nearest_by_cosine_is_found(tmp_path: Path, neighbours: Neighbours) -> None:
    new = [example(tmp_path, "dark", (0, 60, 0)), example(tmp_path, "reddish", (200, 20, 10))]
    assert neighbours(new) == [["a green image"], ["a red image"]]


def test_an_image_is_never_its_own_neighbour(neighbours: Neighbours, training: list[Example]) -> None:
    assert neighbours(training[:2]) == [["a orange image"], ["a red image"]]
    assert neighbours(training[1:2]) == neighbours(training)[1:2]


def test_the_file_of_a_training_image_or_a_copy_is_not_its_own_neighbour(
    tmp_path: Path, neighbours: Neighbours, training: list[Example]
) -> None:
    photo = Example(str(training[1].image.path), training[1].image, ())
    copy = example(tmp_path, "copy", COLOURS["red"])
    assert neighbours([photo, copy]) == [["a red image"], ["a orange image"]]


def test_where_every_training_image_is_the_same_picture_it_is_reported(
    tmp_path: Path, training: list[Example]
) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    Neighbours.store(folder, training[:1], encode, TRANSFORM, 0)
    copy = example(tmp_path, "copy", COLOURS["red"])
    with pytest.raises(ValueError, match="its encoder distinguishes no training image from copy"):
        Neighbours(folder, encode, TRANSFORM, 0, count=1)([copy])


def test_features_are_of_length_one_in_half_precision(tmp_path: Path, neighbours: Neighbours) -> None:
    stored = np.load(tmp_path / "neighbours" / "features.npy")
    assert stored.dtype == np.float16 and stored.shape == (4, 3)
    assert np.allclose((stored.astype(float) ** 2).sum(1), 1, atol=1e-2)


def test_a_damaged_folder_is_named(tmp_path: Path, neighbours: Neighbours) -> None:
    (tmp_path / "neighbours" / "captions.json").write_text("[")
    with pytest.raises(ValueError, match="neighbours with the training images' features is damaged"):
        Neighbours(tmp_path / "neighbours", encode, TRANSFORM, 0, count=1)


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, neighbours: Neighbours) -> None:
    with pytest.raises(ValueError, match="gone.png does not exist"):
        neighbours([Example("gone", ImageFile(tmp_path / "gone.png"), ())])


def retrieved_draft(examples: list[Example], **settings: Any) -> RetrievedDraft:
    data = condition_data({"train": examples}, captions_per_image=5)
    given = {"run": None, "encoder": "", "count": 1, "separator": " ", "prompt": None, "max_length": 9}
    return RetrievedDraft(data, **given | {"training": SHARES} | settings)


def test_the_captions_of_several_images_come_nearest_first(
    tmp_path: Path, neighbours: Neighbours, training: list[Example]
) -> None:
    neighbours.count = 3
    assert neighbours(training[1:2]) == [["a red image", "a green image", "a blue image"]]
    assert neighbours([example(tmp_path, "dark", (0, 60, 0))])[0][0] == "a green image"
    neighbours.count = 4
    with pytest.raises(
        ValueError, match="draft.count=4 takes .* and only 3 differ from red: set draft.count=3"
    ):
        neighbours(training[:1])


def test_training_images_are_encoded_once(
    tmp_path: Path, neighbours: Neighbours, training: list[Example]
) -> None:
    before = neighbours(training)
    encoded: list[int] = []
    neighbours.encode = lambda images: encoded.append(len(images)) or encode(images)
    assert neighbours(training) == before and not encoded
    # Another picture of the same name is not that training image.
    other = example(tmp_path, "other", (0, 200, 10))
    assert neighbours([Example("red", other.image, ())]) == [["a green image"]] and encoded == [1]


def test_features_cached_for_training_are_used(tmp_path: Path, training: list[Example]) -> None:
    folder, cached = tmp_path / "cached", torch.eye(4) + 0.1
    folder.mkdir()

    def refused(images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("encoded")

    Neighbours.store(folder, training, refused, TRANSFORM, 0, lambda examples: cached)
    found = Neighbours(folder, refused, TRANSFORM, 0, count=1, cached=lambda examples: cached[2:3] + 0.1)
    assert found([Example("new", None, ())]) == [["a green image"]]


def test_drafts_of_training_are_those_of_other_images_with_all_captions_as_targets(
    neighbours: Neighbours, training: list[Example]
) -> None:
    neighbours.count = 2
    retrieved = retrieved_draft(training, count=2, separator="; ", training=SHARES | {"as_tested": 1.0})
    retrieved.neighbours = neighbours
    retrieved.validate({"resume": "run", "trainer": {"captions_per_image": 5}})
    retrieved.prepare(training, "train")
    drafts = [retrieved.text(one, epoch=0, targets=one.references) for one in training]
    assert drafts[1] == "a red image; a green image"
    assert all(one.references[0] not in found for one, found in zip(training, drafts, strict=True))


def test_each_image_is_looked_up_once(neighbours: Neighbours, training: list[Example]) -> None:
    asked: list[list[str]] = []

    retrieved = retrieved_draft(training)
    retrieved.neighbours = lambda examples: asked.append([e.id for e in examples]) or neighbours(examples)
    retrieved.prepare(training[:3], "test")
    retrieved.prepare(training, "test")
    retrieved.prepare(training[:1], "test")
    assert asked == [["red", "orange", "green"], ["blue"]]
    assert retrieved.test_text(training[0]) == "a orange image"
    assert pickle.loads(pickle.dumps(retrieved)).test_text(training[0]) == "a orange image"


def test_the_encoder_learns_how_many_images_are_to_come(tmp_path: Path, training: list[Example]) -> None:
    Neighbours.store(tmp_path, training, encode, TRANSFORM, 0)
    asked: list[int] = []
    neighbours = Neighbours(tmp_path, encode, TRANSFORM, 0, count=1, fold=asked.append)
    neighbours(training)  # stored
    neighbours([example(tmp_path, "dark", (0, 60, 0)), example(tmp_path, "reddish", (200, 20, 10))])
    assert asked == [2]
