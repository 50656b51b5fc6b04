"""Batches: shapes and padding, cut captions, and an order that depends on (seed, epoch) alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from easycap.data.images import PackedImage
from easycap.data.loader import Collate, TrainLoader, evaluation_batches
from easycap.data.transforms import Transform
from easycap.types import Batch, Example, Preprocessing
from easycap.vocab.word import WordVocabulary

CAPTIONS = ("one two three", "one two", "three", "two two two two two two", "one")
VOCABULARY = WordVocabulary(size=10, min_count=1, captions=CAPTIONS, segmenter="spaces")
TRANSFORM = Transform(Preprocessing(size=4, mean=(0.5,) * 3, std=(0.5,) * 3))


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    pixels = np.arange(20, dtype=np.uint8).repeat(48).reshape(20, 4, 4, 3)
    np.save(tmp_path / "x.npy", pixels)
    return [Example(f"i{row}", PackedImage(tmp_path / "x.npy", row), CAPTIONS) for row in range(20)]


def loader(examples: list[Example], **changes: object) -> TrainLoader:
    settings = {"batch_size": 4, "captions_per_image": 2, "max_length": 5, "workers": 0, "seed": 1}
    settings |= {"ranks": (0, 1)}
    return TrainLoader(examples, TRANSFORM, VOCABULARY, {}, **(settings | changes))


def collate(captions: tuple[str, ...], max_length: int) -> Batch:
    pixels = torch.zeros(3, 4, 4, dtype=torch.uint8)
    example = Example("x", None, captions)
    return Collate(VOCABULARY, {}, max_length=max_length, captions_per_image=None, seed=0)(
        [(example, pixels)]
    )


def test_words_start_with_bos_and_targets_end_with_eos() -> None:
    v = VOCABULARY
    batch = collate(("one two", "three"), 5)
    one, two, three = v.encode("one two three")
    assert batch.input_ids.tolist() == [[v.bos_id, one, two], [v.bos_id, three, v.pad_id]]
    assert batch.targets.tolist() == [[one, two, v.eos_id], [three, v.eos_id, v.pad_id]]


def test_a_cut_caption_is_taught_its_next_word_not_a_false_end() -> None:
    batch = collate(("two two two two two two",), 4)
    assert batch.input_ids.shape == batch.targets.shape == (1, 4)
    assert VOCABULARY.eos_id not in batch.targets
    fits = collate(("two two two",), 4)
    assert fits.targets[0, -1] == VOCABULARY.eos_id


def test_rows_point_at_images(examples: list[Example]) -> None:
    batch = next(loader(examples).epoch(0))
    assert batch.inputs.images.shape == (4, 3, 4, 4) and batch.inputs.images.dtype == torch.uint8
    assert batch.rows.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [f"i{batch.inputs.images[n, 0, 0, 0]}" for n in range(4)] == batch.image_ids


def fingerprint(batches: list[Batch]) -> list:
    return [(batch.image_ids, batch.input_ids.tolist()) for batch in batches]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_depends_on_seed_and_epoch_alone(examples: list[Example], workers: int) -> None:
    first = fingerprint(list(loader(examples).epoch(3)))
    torch.manual_seed(99)
    again = loader(examples, workers=workers)
    list(again.epoch(0))
    assert fingerprint(list(again.epoch(3))) == first
    assert fingerprint(list(again.epoch(4))) != first
    assert fingerprint(list(loader(examples, seed=2).epoch(3))) != first


def test_an_epoch_can_start_in_the_middle(examples: list[Example]) -> None:
    whole = fingerprint(list(loader(examples).epoch(1)))
    assert fingerprint(list(loader(examples).epoch(1, start=2))) == whole[2:]


def test_the_captions_of_an_image_do_not_depend_on_the_batch(examples: list[Example]) -> None:
    def drawn(batch_size: int) -> dict:
        found = {}
        for batch in loader(examples, batch_size=batch_size).epoch(0):
            for row, words in zip(batch.rows.tolist(), batch.input_ids.tolist(), strict=True):
                words = [w for w in words if w != VOCABULARY.pad_id]
                found.setdefault(batch.image_ids[row], []).append(words)
        return found

    assert drawn(4) == drawn(10)


def test_loading_does_not_touch_the_global_random_state(examples: list[Example]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    list(loader(examples).epoch(0))
    assert torch.equal(torch.rand(1), expected)


def test_evaluation_sees_every_image_once_with_all_captions(examples: list[Example]) -> None:
    batches = list(
        evaluation_batches(examples, TRANSFORM, VOCABULARY, {}, batch_size=6, max_length=9, workers=0)
    )
    assert [i for batch in batches for i in batch.image_ids] == [example.id for example in examples]
    assert sum(len(batch.input_ids) for batch in batches) == 20 * len(CAPTIONS)
