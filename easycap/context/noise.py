"""Arbitrary text as the draft."""

from __future__ import annotations

from functools import partial
from random import Random

from easycap.context.draft import Draft, DraftData
from easycap.registry import register
from easycap.types import Example


@register("draft", "noise")
def noise(*, max_words: int, training: dict[str, float], draft_data: DraftData) -> Draft:
    """In testing: some caption of some other, training, image; which one depends on the image's id alone."""
    return Draft(
        partial(_other_caption, draft_data),
        signature="noise",
        max_words=max_words,
        training=training,
        draft_data=draft_data,
        prepare=draft_data.pack,
        of_photos=False,
    )


def _other_caption(data: DraftData, example: Example) -> str:
    return data.caption(example, Random(f"noise/{example.id}"))
