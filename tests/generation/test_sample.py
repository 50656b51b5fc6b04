"""Sampling: frequencies, truncation, seeds and several captions per image."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from helpers.toy_decoder import EOS, PAD, UNK, ToyDecoder, made, tables, without_padding

from easycap.generation.greedy import Greedy
from easycap.generation.rollout import draw, roll_out
from easycap.generation.sample import Sample

PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "num_samples": 1, "seed": 1}


def drawn(count: int, decoder: ToyDecoder, memory, **changes) -> list[tuple[int, ...]]:
    return without_padding(made(Sample, **{**PLAIN, "num_samples": count, **changes})(decoder, memory).words)


def restricted(decoder: ToyDecoder, table: torch.Tensor, last: int, t: int) -> torch.Tensor:
    logits = table[last] + decoder.drift[t]
    return logits.index_fill(0, torch.tensor([PAD, 1, UNK]), -math.inf)


def probability(
    decoder: ToyDecoder, table: torch.Tensor, caption: tuple[int, ...], temperature: float
) -> float:
    total, last = 1.0, 1
    for t, word in enumerate(caption):
        total *= float((restricted(decoder, table, last, t) / temperature).softmax(0)[word])
        last = word
    return total


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_captions_are_as_frequent_as_they_are_likely(temperature):
    decoder, memory, count = ToyDecoder(6, max_length=3, drift_size=0.5), tables(1, 6, sharpness=0.5), 6000
    found = Counter(drawn(count, decoder, memory, temperature=temperature))
    expected = {
        caption: count * probability(decoder, memory.tokens[0], caption, temperature)
        for caption in decoder.captions()
    }
    assert sum(expected.values()) == pytest.approx(count, rel=1e-4)
    common = [caption for caption, number in expected.items() if number >= 5]
    chi_square = sum((found[caption] - expected[caption]) ** 2 / expected[caption] for caption in common)
    freedom = len(common) - 1
    assert freedom >= 8
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom)


def test_top_k_and_top_p_never_leave_their_set():
    decoder, memory = ToyDecoder(12, max_length=1, drift_size=0.5), tables(1, 12, sharpness=0.5)
    probabilities = restricted(decoder, memory.tokens[0], 1, 0).softmax(0)
    order = probabilities.argsort(descending=True).tolist()
    nucleus = next(n for n in range(1, 13) if probabilities[order[:n]].sum() >= 0.8)
    assert 3 < nucleus < 8
    assert {c[0] for c in drawn(3000, decoder, memory, top_k=3)} == set(order[:3])
    assert {c[0] for c in drawn(3000, decoder, memory, top_p=0.8)} == set(order[:nucleus])
    assert {c[0] for c in drawn(3000, decoder, memory, top_k=3, top_p=0.999)} == set(order[:3])


def test_a_small_top_p_or_temperature_or_one_word_is_greedy():
    decoder, memory = ToyDecoder(vocab_size=12, max_length=6), tables(9, 12)
    greedy = without_padding(made(Greedy)(decoder, memory).words)
    for changes in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-3}):
        assert drawn(1, decoder, memory, **changes) == greedy


def test_samples_of_an_image_stand_together_and_differ():
    decoder, memory = ToyDecoder(vocab_size=12, max_length=6), tables(2, 12, sharpness=0.5)
    memory.tokens[0, :, 4:8] -= 30  # the first image knows words from 8 on, the second those below
    memory.tokens[1, :, 8:] -= 30
    captions = drawn(10, decoder, memory)
    assert decoder.num_starts == 2
    assert {w for c in captions[:10] for w in c} <= {EOS, 8, 9, 10, 11}
    assert {w for c in captions[10:] for w in c} <= {EOS, 4, 5, 6, 7}
    assert len(set(captions[:10])) > 5


def test_scores_are_the_models_own_log_probabilities():
    decoder, memory = ToyDecoder(vocab_size=12, max_length=6), tables(8, 12)
    generated = made(Sample, **{**PLAIN, "temperature": 0.3, "top_p": 0.9})(decoder, memory)
    captions = without_padding(generated.words)
    expected = [decoder.log_prob(*pair) for pair in zip(memory.tokens, captions, strict=True)]
    torch.testing.assert_close(generated.scores, torch.tensor(expected))


def test_a_seed_repeats_its_captions_and_calls_go_on():
    decoder, memory = ToyDecoder(vocab_size=12, max_length=6), tables(8, 12)
    one, two, other = (made(Sample, **{**PLAIN, "seed": seed}) for seed in (5, 5, 6))
    first = [one(decoder, memory).words.tolist() for _ in range(3)]
    assert first == [two(decoder, memory).words.tolist() for _ in range(3)]
    assert first[0] != first[1]
    assert first[0] != other(decoder, memory).words.tolist()


def test_rows_can_be_rolled_out_from_a_state_without_rules():
    """What self-critical training does: select rows, draw from the model as it is, no gradient."""
    decoder, memory = ToyDecoder(vocab_size=8, max_length=5), tables(2, 8, sharpness=0.1)
    memory.tokens.requires_grad_()
    rows = torch.tensor([0, 0, 0, 1, 1, 1])
    generator = torch.Generator().manual_seed(0)
    generated = roll_out(
        decoder,
        decoder.start(memory).select(rows),
        first=torch.ones_like(rows),
        max_length=5,
        logits_processor=lambda scores, words: scores,
        choose=lambda scores: draw(scores, generator),
        pad_id=PAD,
        eos_id=EOS,
    )
    assert generated.words.shape[0] == generated.scores.shape[0] == 6
    assert not generated.scores.requires_grad
