"""ROUGE-L as the COCO evaluation computes it (Lin and Och, ACL 2004; pycocoevalcap, beta 1.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from easycap.metrics.corpus import Corpus, prepare
from easycap.metrics.signature import signature
from easycap.registry import register
from easycap.types import Score

_BETA = 1.2
_LONG = 1000


@register("scorer", "rouge_l")
class RougeL:
    """ROUGE-L, 0..1: the longest common subsequence's best precision and best recall over the references."""

    names = ("ROUGE-L",)

    def __call__(
        self,
        captions: Mapping[str, str],
        references: Mapping[str, Sequence[str]],
        annotations: Mapping[str, Any] | None = None,
    ) -> dict[str, Score]:
        """Return ROUGE-L; see `Scorer`."""
        return self.score_corpus(prepare(captions, references))

    def score_corpus(self, corpus: Corpus) -> dict[str, Score]:
        """Return the score of a prepared corpus, with which several scorers share the work."""
        values = [rouge_l(c, r) for c, r in zip(corpus.captions, corpus.references, strict=True)]
        per_image = dict(zip(corpus.ids, values, strict=True))
        text = signature("ROUGE-L", corpus, beta=_BETA)
        return {"ROUGE-L": Score(sum(values) / len(values), per_image, text)}


def rouge_l(caption: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return ROUGE-L of one tokenised caption against its tokenised references."""
    if not caption:
        return 0.0
    places = _places(caption) if len(caption) <= _LONG else _places_in_long(caption, references)
    common = [_common_length(places, len(caption), reference) for reference in references]
    precision = max(common) / len(caption)
    recall = max(c / len(reference) for c, reference in zip(common, references, strict=True))
    if not precision:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _places(tokens: Sequence[str]) -> dict[str, int]:
    """Per word, the positions where it stands, as the bits of a number."""
    places: dict[str, int] = {}
    for position, token in enumerate(tokens):
        places[token] = places.get(token, 0) | 1 << position
    return places


def _places_in_long(tokens: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, int]:
    """The same for the references' words alone, in time linear in the tokens: adding bit by bit is not."""
    shared = set(tokens) & set().union(*references)
    return {word: int("".join("01"[token == word] for token in reversed(tokens)), 2) for word in shared}


def _common_length(places: Mapping[str, int], size: int, other: Sequence[str]) -> int:
    """The length of the longest common subsequence, a whole row at a time (Hyyro, AWOCA 2004).

    A zero bit of `row` at position i says that the subsequence grows there.
    """
    row = full = (1 << size) - 1
    for token in other:
        here = row & places.get(token, 0)
        if here:
            row = (row + here) | (row - here)
    return size - (row & full).bit_count()
