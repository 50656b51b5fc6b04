"""The captioner's own output as the draft."""

from __future__ import annotations

from easycap.context.draft import Draft, DraftData
from easycap.registry import register
from easycap.types import Example


@register("draft", "own")
def own(*, max_words: int, training: dict[str, float], draft_data: DraftData) -> Draft:
    """In testing: nothing at first; each round of refinement reads what the one before said."""
    return Draft(
        _nothing,
        signature="own",
        max_words=max_words,
        training=training,
        draft_data=draft_data,
    )


def _nothing(example: Example) -> str:
    return ""
