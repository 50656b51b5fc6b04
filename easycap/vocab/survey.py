"""How a vocabulary fits captions: what it knows of them, how long they become, how many are cut."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from easycap.types import Vocabulary


class Survey(NamedTuple):
    """coverage: share of running words (or pieces) that are known; length: mean words (or pieces) of a caption;
    truncated: share of captions longer than the decoder's word positions. Shares are 0..1."""

    coverage: float
    length: float
    truncated: float


def survey(vocabulary: Vocabulary, captions: Iterable[str], *, max_words: int) -> Survey:
    """Return how `captions` fit into `max_words` word positions, of which bos takes one."""
    number = total = unknown = cut = 0
    for caption in captions:
        ids = vocabulary.encode(caption)
        number += 1
        total += len(ids)
        cut += len(ids) > max_words - 1
        unknown += ids.count(vocabulary.unk_id)
    return Survey(1 - unknown / max(1, total), total / max(1, number), cut / max(1, number))
