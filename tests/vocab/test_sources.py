"""What a vocabulary is made from: the training captions and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.tiny_config import TINY

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.tasks.captioning import CaptioningTask
from easycap.types import Dataset, Example, Vocabulary

CONFIG: dict[str, Any] = check(compose([*TINY, "vocab=word"])[0])


def vocabulary_of(train: list[str], held_out: Any) -> Vocabulary:
    examples = [Example(str(number), None, (caption,)) for number, caption in enumerate(train)]
    data = Dataset("made", {"train": examples, "val": held_out, "test": held_out})
    return CaptioningTask.build_vocabulary(CONFIG, data, None)


class _Sealed(list):
    def __iter__(self):
        raise AssertionError("held-out captions are read")

    __getitem__ = __len__ = __iter__


def test_held_out_captions_are_not_even_read() -> None:
    words = vocabulary_of(["a dog", "a cat"], _Sealed())
    assert words.words[4:] == ["a", "cat", "dog"]


def test_a_word_of_validation_captions_alone_is_unknown() -> None:
    held_out = [Example("v", None, ("a zebra and a dog",) * 50)]
    words = vocabulary_of(["a dog", "a cat"], held_out)
    assert words.encode("zebra dog") == [words.unk_id, words.encode("dog")[0]]


def test_coco_sized_training_captions_leave_the_15000_most_frequent_words() -> None:
    assert CONFIG["vocab"]["size"] == 15_000
    train = [f"word{number} " * (2 if number < 15_000 else 1) for number in range(16_000)]
    words = vocabulary_of(train, _Sealed())
    assert len(words) == 15_000 + 4
    assert words.unk_id not in words.encode("word0 word14999")
    assert words.encode("word15000") == [words.unk_id]


def test_sealed_captions_cannot_be_read_unnoticed() -> None:
    with pytest.raises(AssertionError, match="held-out"):
        [example.references for example in _Sealed([Example("v", None, ("a",))])]
