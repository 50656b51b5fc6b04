"""The logits processors, against their definitions in plain Python."""

from __future__ import annotations

import pytest
import torch
from helpers.toy_decoder import made
from hypothesis import given, settings
from hypothesis import strategies as st

from easycap.generation.greedy import Greedy
from easycap.generation.logits_processors import (
    LogitsProcessor,
    restore_eos,
    suppress_repeated_ngrams,
    suppress_tokens,
    top_k_filter,
    top_p_filter,
)

VOCAB = 6
QUICK = settings(max_examples=60, deadline=None)
score_rows = st.lists(
    st.lists(st.floats(-9, 9, width=16), min_size=VOCAB, max_size=VOCAB), min_size=1, max_size=4
).map(lambda rows: torch.tensor(rows, dtype=torch.float))


def allowed(scores: torch.Tensor) -> list[set[int]]:
    return [{word for word, score in enumerate(row) if score > -1e30} for row in scores.tolist()]


@QUICK
@given(st.data(), score_rows)
def test_an_ngram_never_appears_twice(data, scores):
    size, length = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 9))
    row = st.lists(st.integers(0, VOCAB - 1), min_size=length, max_size=length)
    words = data.draw(st.lists(row, min_size=len(scores), max_size=len(scores)))
    ruled = suppress_repeated_ngrams(
        scores, torch.tensor(words, dtype=torch.long).view(len(scores), length), size
    )
    for so_far, kept in zip(words, allowed(ruled), strict=True):
        seen = {tuple(so_far[i : i + size]) for i in range(length - size + 1)}
        repeats = {word for word in range(VOCAB) if tuple([*so_far, word][-size:]) in seen}
        assert kept == set(range(VOCAB)) - repeats


@QUICK
@given(score_rows, st.integers(1, VOCAB + 2))
def test_top_k_keeps_the_best_k_words(scores, k):
    for row, kept in zip(scores.tolist(), allowed(top_k_filter(scores, k)), strict=True):
        worst = sorted(row, reverse=True)[:k][-1]
        assert kept == {word for word, score in enumerate(row) if score >= worst}


@QUICK
@given(score_rows, st.floats(0.01, 0.99))
def test_top_p_keeps_the_fewest_words_that_reach_p(scores, p):
    for row, kept in zip(scores, allowed(top_p_filter(scores, p)), strict=True):
        probabilities = row.double().softmax(0).tolist()
        weights = sorted((probabilities[word] for word in kept), reverse=True)
        assert sum(weights) >= p - 1e-5
        assert sum(weights[:-1]) < p + 1e-5
        assert (
            min(weights)
            >= max([q for word, q in enumerate(probabilities) if word not in kept], default=0) - 1e-7
        )


@pytest.mark.parametrize("p", [1e-9, 0.5])
def test_top_p_keeps_the_best_word_at_least(p):
    scores = torch.tensor([[0.0, 50.0, 1.0], [3.0, float("-inf"), float("-inf")]])
    assert allowed(top_p_filter(scores, p)) == [{1}, {0}]


@QUICK
@given(score_rows, st.sets(st.integers(0, VOCAB - 1)))
def test_a_rule_forbids_and_leaves_the_rest_alone(scores, ids):
    before = scores.clone()
    ruled = suppress_tokens(scores, sorted(ids))
    assert torch.equal(scores, before)
    assert allowed(ruled) == [set(range(VOCAB)) - ids] * len(scores)
    left = sorted(set(range(VOCAB)) - ids)
    assert torch.equal(ruled[:, left], scores[:, left])


def test_a_caption_that_may_not_go_on_ends():
    unruled = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    ruled = torch.tensor([[float("-inf")] * 3, [float("-inf"), 2.0, float("-inf")]])
    assert allowed(restore_eos(ruled, unruled, eos_id=0)) == [{0}, {1}]
    assert restore_eos(ruled, unruled, eos_id=0)[0, 0] == 1


def test_no_end_before_min_length():
    processor = LogitsProcessor(forbidden=(0,), min_length=2, no_repeat_ngram=0, may_repeat=(), eos_id=1)
    scores = torch.zeros(1, VOCAB)
    for length, ends in [(0, False), (1, False), (2, True), (3, True)]:
        kept = allowed(processor(scores, torch.full((1, length), 5)))[0]
        assert kept == set(range(VOCAB)) - {0} - (set() if ends else {1})


def test_min_length_yields_where_every_word_is_used_up():
    processor = LogitsProcessor(forbidden=(0,), min_length=9, no_repeat_ngram=1, may_repeat=(), eos_id=1)
    assert allowed(processor(torch.zeros(1, VOCAB), torch.tensor([[2, 3, 4, 5]]))) == [{1}]


@QUICK
@given(st.lists(st.integers(2, VOCAB - 1), max_size=6), st.sets(st.integers(2, VOCAB - 1)))
def test_stop_words_may_come_again_and_others_not(words, stop_words):
    processor = LogitsProcessor(
        forbidden=(0,), min_length=0, no_repeat_ngram=1, may_repeat=tuple(stop_words), eos_id=1
    )
    kept = allowed(processor(torch.zeros(1, VOCAB), torch.tensor([words], dtype=torch.long)))[0]
    assert kept == {1} | set(range(2, VOCAB)) - (set(words) - stop_words)


def test_stop_words_are_found_by_the_vocabulary():
    processor = made(Greedy, no_repeat_ngram=1, may_repeat=("0", "2")).logits_processor
    assert processor.may_repeat == (4, 6)
    with pytest.raises(ValueError, match="no_repeat_ngram"):
        made(Greedy, may_repeat=("0",))
