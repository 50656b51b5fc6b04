"""The recipe show_attend_tell/sgrvinod_soft against sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning at cc9c7e2.

models.py: the attention (70-84), the start (146-156), the step and the output with its only dropout (199-209), initial
words and output (118-124); train.py: the doubly stochastic term (the mean over captions and patches of the squares).
"""

from __future__ import annotations

import pytest
import torch
from helpers.attention_decoders import VOCAB, WIDTH, build_attention_lstm
from helpers.memories import (
    NUM_TAGS,
    close,
    naive_lstm,
    random_memory,
    random_words,
    show_dropouts,
    spread_weights,
)

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.models.decoders.attention_lstm import AttentionLSTM, Reduction, Variant
from easycap.types import Memory


def recipe() -> dict:
    config = check(compose(["experiment=show_attend_tell/sgrvinod_soft", "data.root=somewhere"])[0])
    names = ("variant", "alpha_weight", "alpha_reduction", "dropout")
    return {name: config["decoder"][name] for name in names}


def tutorial(
    decoder: AttentionLSTM, memory: Memory, words: torch.Tensor, image: int, dropped: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (T,V) and attention (T,M) of one caption; the dropout multiplies by `dropped`."""
    p = dict(decoder.named_parameters())

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return p[f"{name}.weight"] @ x + p.get(f"{name}.bias", 0)

    tokens, valid = memory.tokens[image], memory.mask[image]
    patches = [a for a, real in zip(tokens[NUM_TAGS:], valid[NUM_TAGS:], strict=True) if real]
    mean = sum(patches) / len(patches)
    h, c = linear("initial_hidden", mean), linear("initial_cell", mean)
    logits, attention = [], []
    for word in words:
        energy = {
            i: linear(
                "attention.energy",
                (linear("attention.key", tokens[i]) + linear("attention.query", h)).clamp(min=0),
            )
            for i in range(len(tokens))
            if valid[i]
        }
        total = sum(e.exp() for e in energy.values())
        alpha = torch.zeros(len(tokens))
        for i, e in energy.items():
            alpha[i] = (e.exp() / total).squeeze()
        gate = 1 / (1 + torch.exp(-linear("gate", h)))
        seen = gate * sum(alpha[i] * tokens[i] for i in energy)
        gates = p["word_gates.weight"] @ p["embedding.weight"][word]
        h, c = naive_lstm(gates + linear("lstm.gates", torch.cat([seen, h])), c)
        logits.append(linear("output", h * dropped))
        attention.append(alpha)
    return torch.stack(logits), torch.stack(attention)


@pytest.mark.parametrize("training", [False, True])
def test_equals_the_tutorial_with_dropout_before_the_output_alone(training: bool) -> None:
    assert recipe()["variant"] is Variant.sgrvinod and recipe()["dropout"] == 0.5
    decoder = spread_weights(build_attention_lstm(**recipe()))
    show_dropouts(decoder, 3.0)
    decoder.train(training)
    memory, words = random_memory(WIDTH), random_words(VOCAB)
    output = decoder(words, decoder.start(memory))
    squares = []
    for image in range(len(words)):
        logits, alpha = tutorial(decoder, memory, words[image], image, 3.0 if training else 1.0)
        close(output.logits[image], logits)
        close(output.attention[image], alpha)
        looked = (alpha * (words[image] != 0).unsqueeze(1)).sum(0)
        squares += [(1 - looked[i]) ** 2 for i in range(NUM_TAGS, len(alpha.T)) if memory.mask[image, i]]
    if training:
        assert recipe()["alpha_weight"] == 1.0 and recipe()["alpha_reduction"] is Reduction.mean
        close(output.losses["doubly_stochastic"], sum(squares) / len(squares))


def test_words_and_output_start_as_there() -> None:
    decoder = build_attention_lstm(**recipe(), embed_dim=30, hidden_dim=64, channels=20, vocab_size=60)
    for weight in (decoder.embedding.weight, decoder.output.weight):
        assert 0.09 < float(weight.detach().abs().max()) <= 0.1
    assert not decoder.output.bias.any()
    for parameter in (decoder.word_gates.weight, *decoder.lstm.parameters()):
        assert 0.12 < float(parameter.detach().abs().max()) <= 0.125  # 1 / sqrt(64)
