"""Greedy decoding: its words, its score, what it never produces, and when it stops."""

from __future__ import annotations

import pytest
import torch
from helpers.toy_decoder import BOS, EOS, PAD, UNK, ToyDecoder, made, tables, without_padding

from easycap.generation.greedy import Greedy


def naive(decoder: ToyDecoder, table: torch.Tensor) -> tuple[int, ...]:
    caption: tuple[int, ...] = ()
    while len(caption) < decoder.max_length and caption[-1:] != (EOS,):
        logits = table[caption[-1] if caption else BOS] + decoder.drift[len(caption)]
        logits[[PAD, BOS, UNK]] = -torch.inf
        caption += (int(logits.argmax()),)
    return caption


def test_takes_the_best_word_each_time():
    decoder, memory = ToyDecoder(vocab_size=10, max_length=10), tables(25, 10)
    expected = [naive(decoder, table) for table in memory.tokens]
    generated = made(Greedy)(decoder, memory)
    assert without_padding(generated.words) == expected
    assert generated.words.shape[1] == max(map(len, expected))
    assert len({len(caption) for caption in expected}) > 4
    scores = [decoder.log_prob(*pair) for pair in zip(memory.tokens, expected, strict=True)]
    torch.testing.assert_close(generated.scores, torch.tensor(scores))


def test_ended_captions_cost_nothing_more():
    decoder, memory = ToyDecoder(vocab_size=10, max_length=10), tables(25, 10)
    lengths = [len(caption) for caption in without_padding(made(Greedy)(decoder, memory).words)]
    assert decoder.num_starts == 25
    assert decoder.rows == [sum(length > t for length in lengths) for t in range(max(lengths))]


@pytest.mark.parametrize("max_length", [1, 3, 10, None])
def test_stops_at_max_length(max_length):
    decoder, memory = ToyDecoder(vocab_size=10, max_length=10), tables(25, 10)
    memory.tokens[..., EOS] -= 20
    words = made(Greedy, max_length=max_length)(decoder, memory).words
    assert words.shape == (25, max_length or 10)
    assert EOS not in words


def test_forbidden_words_never_appear():
    decoder, memory = ToyDecoder(vocab_size=10, max_length=6), tables(25, 10)
    memory.tokens[..., [PAD, BOS, UNK]] += 20
    captions = without_padding(made(Greedy)(decoder, memory).words)
    assert not {BOS, UNK} & {word for caption in captions for word in caption}
    captions = without_padding(made(Greedy, allow_unk=True)(decoder, memory).words)
    assert UNK in {word for caption in captions for word in caption}


def test_words_can_be_trained_on_afterwards():
    """Words made in inference mode could not be used in a graph: rewards of sampled captions need them."""
    decoder, memory = ToyDecoder(vocab_size=10, max_length=6), tables(3, 10)
    words = made(Greedy)(decoder, memory).words
    table = torch.randn(10, 4, requires_grad=True)
    torch.nn.functional.embedding(words, table).sum().backward()
    assert table.grad is not None


def test_dropout_must_be_off():
    decoder, memory = ToyDecoder(vocab_size=10, max_length=6), tables(3, 10)
    decoder.training = True
    with pytest.raises(AssertionError, match="eval"):
        made(Greedy)(decoder, memory)
