"""Show and Tell, once more, as its paper writes it: one caption, one word, one gate at a time."""

from __future__ import annotations

import pytest
import torch
from helpers.memories import close, naive_lstm, random_memory, random_words, spread_weights

from easycap.models.decoders.lstm import LSTM, Cell, Init
from easycap.types import Memory

EMBED, HIDDEN, VOCAB = 5, 7, 11


@pytest.fixture
def decoder() -> LSTM:
    torch.manual_seed(0)
    decoder = LSTM(
        embed_dim=EMBED,
        hidden_dim=HIDDEN,
        max_length=6,
        dropout=0.0,
        vocab_size=VOCAB,
        dropout_inputs=True,
        cell=Cell.lstm,
        init=Init.im2txt,
    )
    return spread_weights(decoder).eval()


def naive(decoder: LSTM, memory: Memory, words: torch.Tensor, image: int) -> torch.Tensor:
    """Equations 4 to 9 for one caption (T,) of one image -> logits (T,V)."""
    weights = dict(decoder.named_parameters())
    x_to, h_to = (weights[f"lstm.weight_{name}_l0"].view(4, HIDDEN, -1) for name in ("ih", "hh"))
    bias = (weights["lstm.bias_ih_l0"] + weights["lstm.bias_hh_l0"]).view(4, HIDDEN)
    m, c = torch.zeros(HIDDEN), torch.zeros(HIDDEN)

    def read(x: torch.Tensor) -> None:
        nonlocal m, c
        m, c = naive_lstm(torch.cat([x_to[gate] @ x + h_to[gate] @ m + bias[gate] for gate in range(4)]), c)

    for token, valid in zip(memory.tokens[image], memory.mask[image], strict=True):
        if valid:
            read(token)
    logits = []
    for word in words:
        read(weights["embedding.weight"][word])
        logits.append(weights["output.weight"] @ m + weights["output.bias"])
    return torch.stack(logits)


def test_equals_the_papers_equations(decoder: LSTM) -> None:
    memory, words = random_memory(EMBED), random_words(VOCAB)
    logits = decoder(words, decoder.start(memory)).logits
    for image in range(len(words)):
        close(logits[image], naive(decoder, memory, words[image], image))


def test_the_start_is_the_papers() -> None:
    torch.manual_seed(0)
    decoder = LSTM(
        embed_dim=40,
        hidden_dim=50,
        max_length=6,
        dropout=0.0,
        vocab_size=60,
        dropout_inputs=True,
        cell=Cell.lstm,
        init=Init.im2txt,
    )
    for weight in (decoder.embedding.weight, decoder.lstm.weight_hh_l0, decoder.output.weight):
        assert float(weight.detach().abs().max()) <= 0.08
        assert float(weight.detach().std()) == pytest.approx(0.08 / 3**0.5, rel=0.1)
    bias = decoder.lstm.bias_ih_l0.detach().view(4, 50)
    assert torch.equal(bias, torch.tensor([0.0, 1.0, 0.0, 0.0]).unsqueeze(1).expand(4, 50))
    assert not decoder.lstm.bias_hh_l0.any() and not decoder.output.bias.any()


def test_dropout_is_on_inputs_and_outputs_but_not_in_the_recurrence(decoder: LSTM) -> None:
    memory, words = random_memory(EMBED), random_words(VOCAB)
    decoder.dropout.p = decoder.dropout_inputs.p = 1.0
    logits = decoder.train()(words, decoder.start(memory)).logits
    close(logits, decoder.output.bias.expand_as(logits))
    hidden = decoder.start(memory._replace(mask=torch.ones_like(memory.mask))).hidden
    assert hidden.all()
    close(hidden[0], hidden[1])
