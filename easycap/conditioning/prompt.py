"""Text around a draft, as a prompt that a language model continues with the caption."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from easycap.errors import UserError
from easycap.types import Vocabulary

_CAPTIONS = "{captions}"


class Prompt:
    """A template with {captions} in the place of a draft, read with its white space.

    Raises `UserError` for a template without {captions}, or with more than one.
    """

    def __init__(self, template: str) -> None:
        if template.count(_CAPTIONS) != 1:
            raise UserError(
                f"draft.prompt={template!r} must have {_CAPTIONS} once, in the place of the draft: e.g. "
                f"'Similar images show {_CAPTIONS} This image shows'"
            )
        self.template = template
        self.before, self.after = template.split(_CAPTIONS)

    def validate(self, config: Mapping[str, Any]) -> None:
        """Raise `UserError` for a vocabulary of the words of the training captions: others are <unk> in it."""
        if config["vocab"]["name"] == "word":
            raise UserError(
                "draft.prompt is text for a language model, and vocab=word has no words but those of the training "
                "captions: set vocab=pretrained, gpt2 or bert, or draft.prompt=null"
            )

    def room(self, vocabulary: Vocabulary, max_length: int) -> int:
        """Return how many tokens of a draft there is room for; raises `UserError` if none."""
        length = len(_ids(self.before + self.after, vocabulary))
        if length >= max_length:
            raise UserError(
                f"draft.max_length={max_length} leaves no room for captions beside draft.prompt of {length} tokens: "
                "raise it"
            )
        return max_length - length

    def encode(self, text: str, vocabulary: Vocabulary, max_length: int) -> list[int]:
        """Return the ids of the prompt with `text` in it; of one that is too long, the end of the text is left out."""
        ids = _ids(f"{self.before}{text}{self.after}", vocabulary)
        if len(ids) <= max_length:
            return ids
        end = len(_ids(self.after, vocabulary))
        return [*ids[: max_length - end], *ids[len(ids) - end :]]


def _ids(text: str, vocabulary: Vocabulary) -> list[int]:
    encode = getattr(vocabulary, "encode_prompt", vocabulary.encode)
    return list(encode(text))
