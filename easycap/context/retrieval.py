"""A caption of the training image that looks most like an image as its draft."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from easycap.context.draft import Draft, DraftData
from easycap.context.neighbours import Neighbours
from easycap.registry import register
from easycap.types import Example, ImageSource


@register("draft", "retrieval")
def retrieval(
    *,
    run: str | None,
    encoder: str,
    max_words: int,
    training: dict[str, float],
    draft_data: DraftData,
    open_neighbours: Callable[[], Neighbours],
) -> Draft:
    """In testing: a caption of the nearest training image, never the image itself, to the frozen encoder of another
    `run`, or, without it, to an `encoder` as in encoder=OPTION,KEY=VALUE."""
    retrieved = Retrieved(open_neighbours)
    return Draft(
        retrieved,
        signature="retrieval",
        max_words=max_words,
        training=training,
        draft_data=draft_data,
        prepare=retrieved.prepare,
    )


class Retrieved:
    """Captions of the nearest training images, of examples that were prepared."""

    def __init__(self, open_neighbours: Callable[[], Neighbours]) -> None:
        self.open, self.found = open_neighbours, dict[ImageSource, str]()

    @cached_property
    def neighbours(self) -> Neighbours:
        return self.open()

    def __getstate__(self) -> dict[str, object]:
        # Processes that load need what was found, not the encoder that found it.
        return {"found": self.found}

    def prepare(self, examples: Sequence[Example]) -> None:
        new = [example for example in examples if example.image not in self.found]
        if new:
            self.found.update(zip((example.image for example in new), self.neighbours(new), strict=True))

    def __call__(self, example: Example) -> str:
        return self.found[example.image]
