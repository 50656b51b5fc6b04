"""What the next word may be: pure functions over scores (B,V) and the words so far (B,t), without bos.

A processor returns new scores, in which a suppressed word has -inf; it never raises a score. Scores are logits or
log-probabilities alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from easycap.errors import UserError
from easycap.registry import SharedSettings
from easycap.types import Decoder, Vocabulary

NEVER = float("-inf")


def suppress_tokens(scores: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
    """Suppress the words `ids` in every row."""
    # Made on the CPU and copied without waiting: a GPU still computes what the scores are made of.
    index = torch.tensor(ids, dtype=torch.long).to(scores.device, non_blocking=True)
    return scores.index_fill(1, index, NEVER)


def suppress_repeated_ngrams(
    scores: torch.Tensor, words: torch.Tensor, size: int, may_repeat: Sequence[int] = ()
) -> torch.Tensor:
    """Suppress a word, unless in `may_repeat`, that would complete an n-gram of `size` words again in its row."""
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


def restore_eos(scores: torch.Tensor, unprocessed: torch.Tensor, eos_id: int) -> torch.Tensor:
    """Give eos its score in `unprocessed` back in rows where every word is forbidden."""
    stuck = scores.isneginf().all(1)
    scores = scores.clone()
    scores[:, eos_id] = torch.where(stuck, unprocessed[:, eos_id], scores[:, eos_id])
    return scores


def top_k_filter(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Keep the `k` highest scores of a row (more where the k-th is tied)."""
    worst = scores.topk(min(k, scores.shape[1]), dim=1).values[:, -1:]
    return scores.masked_fill(scores < worst, NEVER)


def top_p_filter(scores: torch.Tensor, p: float) -> torch.Tensor:
    """Keep the fewest words whose probabilities sum to at least `p` (nucleus; Holtzman et al. 2020, 3.1)."""
    ordered, ids = scores.sort(dim=1, descending=True)
    probabilities = ordered.softmax(1)
    # A word is kept while the words before it fall short of p, so the best one always stays.
    cut = probabilities.cumsum(1) - probabilities >= p
    return scores.masked_fill(torch.zeros_like(cut).scatter(1, ids, cut), NEVER)


@dataclass(frozen=True, kw_only=True)
class LogitsProcessor:
    """What every way of decoding forbids: (scores (B,V), words so far (B,t)) -> scores (B,V)."""

    forbidden: tuple[int, ...]
    min_length: int
    no_repeat_ngram: int
    may_repeat: tuple[int, ...]
    eos_id: int

    def __call__(self, scores: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        too_short = words.shape[1] < self.min_length
        processed = suppress_tokens(scores, (*self.forbidden, self.eos_id) if too_short else self.forbidden)
        if self.no_repeat_ngram:  # the only rule that can leave no word at all
            processed = suppress_repeated_ngrams(processed, words, self.no_repeat_ngram, self.may_repeat)
            processed = restore_eos(processed, scores, self.eos_id)
        return processed


@dataclass(frozen=True, kw_only=True)
class DecodingSettings(SharedSettings):
    """Settings of every decoding method: at most `max_length` tokens, eos included (None: the decoder's limit), no
    eos before `min_length` tokens, no n-gram of `no_repeat_ngram` words twice (0: off) unless its last word is in
    `may_repeat`; pad and bos never, unk only if `allow_unk`.

    no_repeat_ngram=1 with stop words in `may_repeat` is Up-Down's rule of decoding (1707.07998's release). Raises
    `UserError` for settings out of range.
    """

    max_length: int | None
    min_length: int
    no_repeat_ngram: int
    may_repeat: tuple[str, ...]
    allow_unk: bool

    def __post_init__(self) -> None:
        longest, shortest = self.max_length, self.min_length
        if longest is not None and longest < 1:
            raise UserError(
                f"decoding.max_length={longest} must be at least 1, or null for decoder.max_length"
            )
        if shortest < 0:
            raise UserError(f"decoding.min_length={shortest} must be at least 0 (0: captions may be empty)")
        if longest is not None and shortest > longest:
            raise UserError(f"decoding.min_length={shortest} must not exceed decoding.max_length={longest}")
        if self.no_repeat_ngram < 0:
            raise UserError(f"decoding.no_repeat_ngram={self.no_repeat_ngram} must be at least 0 (0: off)")
        if self.may_repeat and not self.no_repeat_ngram:
            raise UserError(
                "decoding.may_repeat has no effect without decoding.no_repeat_ngram: set that to 1"
            )

    def logits_processor(self, vocabulary: Vocabulary) -> LogitsProcessor:
        """Return the processor over the ids of a vocabulary."""
        pad_id, bos_id, eos_id = vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id
        assert len({pad_id, bos_id, eos_id}) == 3, f"pad {pad_id}, bos {bos_id} and eos {eos_id} must differ"
        unk = () if self.allow_unk or vocabulary.unk_id is None else (vocabulary.unk_id,)
        # Twice: vocabularies of word pieces know a word by other ids at the start of a caption than within it.
        repeatable = {index for word in self.may_repeat for index in vocabulary.encode(f"{word} {word}")}
        return LogitsProcessor(
            forbidden=(pad_id, bos_id, *unk, *getattr(vocabulary, "never_ids", ())),
            min_length=self.min_length,
            no_repeat_ngram=self.no_repeat_ngram,
            may_repeat=tuple(sorted(repeatable)),
            eos_id=eos_id,
        )

    def length_limit(self, decoder: Decoder) -> int:
        """Return the maximum caption length in tokens, eos included; `UserError` if the decoder is limited to less."""
        limit = decoder.max_length if self.max_length is None else self.max_length
        if limit > decoder.max_length:
            raise UserError(
                f"decoding.max_length={limit} is more than the decoder can take: lower it to at most "
                f"decoder.max_length={decoder.max_length}, or set it to null"
            )
        if self.min_length > limit:
            raise UserError(
                f"decoding.min_length={self.min_length} must not exceed decoder.max_length={decoder.max_length}: "
                "lower it"
            )
        return limit
