"""Numbers that show a sick captioner before its scores do: collapse, repetition, bad endings, unknowns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from easycap.errors import UserError
from easycap.metrics.tokenizer import tokenize
from easycap.utils.segmenters import SPACES, Segmenter

# A caption that ends in one of these was cut off, or learnt that fragments are rewarded: the list that users
# of self-critical training count (with ... the), and some articles, conjunctions and prepositions more.
BAD_ENDINGS = frozenset(
    "with in on of a at to for an this his her that the "
    "and or but is are was were by from into onto near their its my your as while next".split()
)


def caption_health(
    captions: Sequence[str],
    *,
    unknown: str | None = None,
    training: Collection[str] | None = None,
    segmenter: Segmenter = SPACES,
) -> dict[str, float]:
    """Return shares (0..1) over N captions, mean length in words, and the number of distinct words.

    `unknown` is the token that stands for a word outside the vocabulary; `training` holds the training
    captions as `normalized` gives them, to tell which are novel. Bad endings are known of English alone, so they are
    not counted where a `segmenter` is needed. Raises `UserError` without captions.
    """
    if not captions:
        raise UserError("no captions to look at")
    tokens = [tokenize(segmenter(text)) for text in captions]
    kinds = Counter(map(" ".join, tokens))
    size = len(captions)
    health = {
        "distinct_captions": len(kinds) / size,
        "most_frequent_caption": max(kinds.values()) / size,
        "repeating_captions": sum(map(repeats, tokens)) / size,
        "bad_endings": sum(words[-1] in BAD_ENDINGS for words in tokens if words) / size,
        "words_per_caption": sum(map(len, tokens)) / size,
        "vocabulary_used": len(set().union(*tokens)),
    }
    if segmenter is not SPACES:
        del health["bad_endings"]
    if unknown is not None:
        number = sum(text.count(unknown) for text in captions)
        known = sum(len(segmenter(text.replace(unknown, " ")).split()) for text in captions)
        health["unknown_words"] = number / max(1, number + known)
    if training is not None:
        health["novel_captions"] = sum(n for text, n in kinds.items() if text not in training) / size
    return health


def normalized(captions: Iterable[str], segmenter: Segmenter = SPACES) -> Counter[str]:
    """Return how often each distinct caption occurs, tokenised and joined, as `caption_health` compares them."""
    return Counter(" ".join(tokenize(segmenter(text))) for text in captions)


def repeats(words: Sequence[str]) -> bool:
    """Say whether a word stands twice in a row or three words in a row come again."""
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return any(map(str.__eq__, words, words[1:])) or len(set(triples)) < len(triples)
