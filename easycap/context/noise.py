"""Arbitrary text as the draft."""

from __future__ import annotations

from functools import partial
from random import Random

from easycap.context.draft import Draft, TrainingData
from easycap.registry import register
from easycap.types import Example


@register("draft", "noise")
def noise(*, max_words: int, training: dict[str, float], training_data: TrainingData) -> Draft:
    """In testing: some caption of some other, training, image; which one depends on the image's id alone."""
    return Draft(
        partial(_other_caption, training_data),
        signature="noise",
        max_words=max_words,
        training=training,
        training_data=training_data,
    )


def _other_caption(data: TrainingData, example: Example) -> str:
    return data.caption(example, Random(f"noise/{example.id}"))
