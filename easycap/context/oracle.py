"""A reference of the image itself as the draft: an upper bound, no captioner's score."""

from __future__ import annotations

from functools import partial
from random import Random

from easycap.context.draft import Draft, DraftData, damage_of
from easycap.registry import register
from easycap.types import Example


@register("draft", "oracle")
def oracle(*, max_words: int, training: dict[str, float], draft_data: DraftData) -> Draft:
    """In testing too: one of the image's references, damaged as in training; which and how depends on the image's id
    alone. Raises `ValueError` for an image without references."""
    return Draft(
        partial(_damaged_reference, training, draft_data),
        signature="oracle",
        max_words=max_words,
        training=training,
        draft_data=draft_data,
        prepare=draft_data.pack,
        of_photos=False,
        tested_is_reference=True,
    )


def _damaged_reference(training: dict[str, float], data: DraftData, example: Example) -> str:
    if not example.references:
        raise ValueError(
            f"draft=oracle damages a reference of the image, and {example.id} has none: give a draft by --draft"
        )
    random = Random(f"oracle/{example.id}")
    return damage_of(training, data)(random.choice(example.references), random)
