"""How a vocabulary fits captions: what it knows of them, how long they become, how many are cut."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import islice
from typing import NamedTuple

from easycap.types import Vocabulary
from easycap.utils.segmenters import SPACES, Segmenter


class Survey(NamedTuple):
    """coverage: share of running words (or tokens) that are known; length: mean words (or tokens) of a caption;
    truncated: share of captions longer than the decoder's word positions. Shares are 0..1.
    """

    coverage: float
    length: float
    truncated: float


def survey(vocabulary: Vocabulary, captions: Iterable[str], *, max_length: int) -> Survey:
    """Return how `captions` fit into `max_length` word positions, of which bos takes one."""
    number = total = unknown = cut = 0
    for caption in captions:
        ids = vocabulary.encode(caption)
        number += 1
        total += len(ids)
        cut += len(ids) > max_length - 1
        unknown += 0 if vocabulary.unk_id is None else ids.count(vocabulary.unk_id)
    return Survey(1 - unknown / max(1, total), total / max(1, number), cut / max(1, number))


class UnknownWords(NamedTuple):
    """The `share` of running words (or pieces), 0..1, that a vocabulary lacks, and the `most_frequent` of them."""

    share: float
    most_frequent: list[str]


def unknown_words(
    vocabulary: Vocabulary, captions: Iterable[str], *, segmenter: Segmenter = SPACES, shown: int = 10
) -> UnknownWords:
    """Return the words of captions that `vocabulary` lacks; `shown` words, cut by `segmenter`, are named at most."""
    if vocabulary.unk_id is None:
        return UnknownWords(0.0, [])
    total = lacking = 0
    counts = Counter[str]()
    unknown: dict[str, list[str]] = {}
    for caption in captions:
        ids = vocabulary.encode(caption)
        total += len(ids)
        if (number := ids.count(vocabulary.unk_id)) == 0:
            continue
        lacking += number
        for chunk in segmenter(caption).split():
            if chunk not in unknown:
                unknown[chunk] = _unknown_in(vocabulary, chunk)
            counts.update(unknown[chunk])
    frequent = sorted(counts, key=lambda word: (-counts[word], word))
    return UnknownWords(lacking / max(1, total), frequent[:shown])


def _unknown_in(vocabulary: Vocabulary, chunk: str) -> list[str]:
    """A word as `segmenter` cuts it, without the marks around it, if the vocabulary lacks it or a part of it."""
    if vocabulary.unk_id not in vocabulary.encode(chunk):
        return []
    kept = [place for place, character in enumerate(chunk) if character.isalnum()]
    return [chunk[kept[0] : kept[-1] + 1].lower()] if kept else [chunk]


def lost_marks(vocabulary: Vocabulary, captions: Collection[str], *, sample: int = 500) -> float:
    """Return the share of captions, 0..1, that lose a combining mark when encoded and decoded.

    Uses at most `sample` captions, evenly spread; captions with unknown words do not count.
    """
    chosen = list(islice(captions, 0, None, max(1, len(captions) // sample)))
    lost = 0
    for caption in chosen:
        if not caption.isascii() and vocabulary.unk_id not in (ids := vocabulary.encode(caption)):
            lost += _num_marks(vocabulary.decode(ids)) < _num_marks(caption)
    return lost / max(1, len(chosen))


def _num_marks(text: str) -> int:
    decomposed = unicodedata.normalize("NFD", text)
    return sum(unicodedata.category(character).startswith("M") for character in decomposed)
