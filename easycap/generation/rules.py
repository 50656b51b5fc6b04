"""What the next word may be: pure functions over scores (B,V) and the words so far (B,t), without bos.

A rule returns new scores in which a forbidden word has -inf; it never raises a score. Scores are logits or
log-probabilities alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from easycap.types import Decoder

NEVER = float("-inf")


def forbid(scores: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
    """Forbid the words `ids` in every row."""
    return scores.index_fill(1, torch.tensor(ids, dtype=torch.long, device=scores.device), NEVER)


def forbid_repeated_ngrams(
    scores: torch.Tensor, words: torch.Tensor, size: int, may_repeat: Sequence[int] = ()
) -> torch.Tensor:
    """Forbid a word, unless in `may_repeat`, that would complete an n-gram of `size` words again in its row."""
    num_ngrams = words.shape[1] - size + 1
    if num_ngrams < 1:
        return scores
    begun = words[:, num_ngrams:]  # (B,size-1): the words that the next one would follow
    seen = words.new_ones(len(words), num_ngrams, dtype=torch.bool)
    for i in range(size - 1):
        seen &= words[:, i : i + num_ngrams] == begun[:, i : i + 1]
    row, ngram = seen.nonzero(as_tuple=True)
    last = words[row, ngram + size - 1]
    again = ~torch.isin(last, torch.tensor(may_repeat, dtype=last.dtype, device=last.device))
    scores = scores.clone()
    scores[row[again], last[again]] = NEVER
    return scores


def end_where_stuck(scores: torch.Tensor, unruled: torch.Tensor, eos_id: int) -> torch.Tensor:
    """Give eos its score in `unruled` back in rows where every word is forbidden."""
    stuck = scores.isneginf().all(1)
    scores = scores.clone()
    scores[stuck, eos_id] = unruled[stuck, eos_id]
    return scores


def keep_top_k(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Keep the `k` highest scores of a row (more where the k-th is tied)."""
    worst = scores.topk(min(k, scores.shape[1]), dim=1).values[:, -1:]
    return scores.masked_fill(scores < worst, NEVER)


def keep_top_p(scores: torch.Tensor, p: float) -> torch.Tensor:
    """Keep the fewest words whose probabilities sum to at least `p` (nucleus; Holtzman et al. 2020, 3.1)."""
    ordered, ids = scores.sort(dim=1, descending=True)
    probabilities = ordered.softmax(1)
    # A word is kept while the words before it fall short of p, so the best one always stays.
    cut = probabilities.cumsum(1) - probabilities >= p
    return scores.masked_fill(torch.zeros_like(cut).scatter(1, ids, cut), NEVER)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The rules every way of decoding shares: (scores (B,V), words so far (B,t)) -> scores (B,V)."""

    forbidden: tuple[int, ...]
    min_words: int
    no_repeat_ngram: int
    may_repeat: tuple[int, ...]
    eos_id: int

    def __call__(self, scores: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        too_short = words.shape[1] < self.min_words
        ruled = forbid(scores, (*self.forbidden, self.eos_id) if too_short else self.forbidden)
        if self.no_repeat_ngram:  # the only rule that can leave no word at all
            ruled = forbid_repeated_ngrams(ruled, words, self.no_repeat_ngram, self.may_repeat)
            ruled = end_where_stuck(ruled, scores, self.eos_id)
        return ruled


def make_rules(
    *,
    max_words: int | None,
    min_words: int,
    no_repeat_ngram: int,
    may_repeat: Sequence[str],
    allow_unk: bool,
    pad_id: int,
    bos_id: int,
    eos_id: int,
    unk_id: int | None,
    encode: Callable[[str], list[int]],
) -> Rules:
    """Return the shared rules; `encode` maps text to ids. Raises `ValueError` for settings out of range.

    no_repeat_ngram=1 with stop words in `may_repeat` is Up-Down's rule of decoding (1707.07998's release).
    """
    if max_words is not None and max_words < 1:
        raise ValueError(f"decoding.max_words={max_words} must be at least 1, or null for decoder.max_words")
    if min_words < 0:
        raise ValueError(f"decoding.min_words={min_words} must be at least 0 (0: captions may be empty)")
    if max_words is not None and min_words > max_words:
        raise ValueError(f"decoding.min_words={min_words} must not exceed decoding.max_words={max_words}")
    if no_repeat_ngram < 0:
        raise ValueError(f"decoding.no_repeat_ngram={no_repeat_ngram} must be at least 0 (0: off)")
    if may_repeat and not no_repeat_ngram:
        raise ValueError("decoding.may_repeat has no effect without decoding.no_repeat_ngram: set that to 1")
    assert len({pad_id, bos_id, eos_id}) == 3, f"pad {pad_id}, bos {bos_id} and eos {eos_id} must differ"
    forbidden = (pad_id, bos_id) if allow_unk or unk_id is None else (pad_id, bos_id, unk_id)
    # Twice: vocabularies of word pieces know a word by other ids at the start of a caption than within it.
    repeatable = {index for word in may_repeat for index in encode(f"{word} {word}")}
    return Rules(
        forbidden=forbidden,
        min_words=min_words,
        no_repeat_ngram=no_repeat_ngram,
        may_repeat=tuple(sorted(repeatable)),
        eos_id=eos_id,
    )


def word_limit(max_words: int | None, min_words: int, decoder: Decoder) -> int:
    """Return how many words, eos included, are generated at most; `ValueError` if the decoder cannot."""
    limit = decoder.max_words if max_words is None else max_words
    if limit > decoder.max_words:
        raise ValueError(
            f"decoding.max_words={limit} is more than the decoder can take: lower it to at most "
            f"decoder.max_words={decoder.max_words}, or set it to null"
        )
    if min_words > limit:
        raise ValueError(
            f"decoding.min_words={min_words} must not exceed decoder.max_words={decoder.max_words}: lower it"
        )
    return limit
