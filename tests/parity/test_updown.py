"""Up-Down, once more, as its paper writes it: one caption, one word, one region at a time."""

from __future__ import annotations

import pytest
import torch
from helpers.attention_decoders import HIDDEN, VOCAB, WIDTH, build_updown
from helpers.memories import (
    NUM_TAGS,
    close,
    naive_lstm,
    pad_memory,
    random_memory,
    random_words,
    spread_weights,
)

from easycap.models.decoders.updown import UpDown
from easycap.types import Memory


@pytest.fixture
def decoder() -> UpDown:
    return spread_weights(build_updown()).eval()


def naive(
    decoder: UpDown, memory: Memory, words: torch.Tensor, image: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Equations 1 to 7 for one caption (T,) of one image -> logits (T,V), attention (T,M)."""
    w = dict(decoder.named_parameters())
    tokens, valid = memory.tokens[image], memory.mask[image]
    patches = [v for v, real in zip(tokens[NUM_TAGS:], valid[NUM_TAGS:], strict=True) if real]
    mean = sum(patches) / len(patches)
    # one matrix for the whole of LSTM 1's input, as the paper has it: [h2 ; v ; word ; h1]
    gates1 = w["lstm1.gates.weight"]
    w1 = torch.cat(
        [gates1[:, :HIDDEN], w["image_gates.weight"], w["word_gates.weight"], gates1[:, HIDDEN:]], 1
    )
    h1 = c1 = h2 = c2 = torch.zeros(HIDDEN)
    logits, attention = [], []
    for word in words:
        x1 = torch.cat([h2, mean, w["embedding.weight"][word], h1])
        h1, c1 = naive_lstm(w1 @ x1 + w["lstm1.gates.bias"], c1)
        energy = {
            i: w["attention.energy.weight"][0]
            @ torch.tanh(w["attention.key.weight"] @ tokens[i] + w["attention.query.weight"] @ h1)
            for i in range(len(tokens))
            if valid[i]
        }
        total = sum(e.exp() for e in energy.values())
        alpha = torch.zeros(len(tokens))
        for i, e in energy.items():
            alpha[i] = e.exp() / total
        seen = sum(alpha[i] * tokens[i] for i in energy)
        h2, c2 = naive_lstm(w["lstm2.gates.weight"] @ torch.cat([seen, h1, h2]) + w["lstm2.gates.bias"], c2)
        logits.append(w["output.weight"] @ h2 + w["output.bias"])
        attention.append(alpha)
    return torch.stack(logits), torch.stack(attention)


def test_equals_the_papers_equations(decoder: UpDown) -> None:
    memory, words = random_memory(WIDTH), random_words(VOCAB)
    output = decoder(words, decoder.start(memory))
    for image in range(len(words)):
        logits, attention = naive(decoder, memory, words[image], image)
        close(output.logits[image], logits)
        close(output.attention[image], attention)


def test_padding_changes_nothing_and_is_never_looked_at(decoder: UpDown) -> None:
    memory, words = random_memory(WIDTH), random_words(VOCAB)
    before = decoder(words, decoder.start(memory))
    after = decoder(words, decoder.start(pad_memory(memory)))
    close(after.logits, before.logits)
    close(after.attention[..., : before.attention.shape[2]], before.attention)
    assert not after.attention[..., before.attention.shape[2] :].any()


def test_the_start_is_the_papers() -> None:
    decoder = build_updown(embed_dim=40, hidden_dim=40, channels=40, vocab_size=60)
    for name, parameter in decoder.named_parameters():
        values = parameter.detach()
        if not name.endswith("bias"):
            assert float(values.std()) == pytest.approx(0.01, rel=0.5), name
        elif "lstm" in name:
            assert torch.equal(values.view(4, 40)[:, 0], torch.tensor([0.0, 1.0, 0.0, 0.0]))
        else:
            assert not values.any(), name


def test_the_papers_size() -> None:
    """Ten thousand and ten words, 2048-d regions: counted from the paper's own sizes."""
    with torch.device("meta"):
        decoder = build_updown(
            embed_dim=1000, hidden_dim=1000, attention_dim=512, channels=2048, vocab_size=10_010
        )
    lstm1 = 4 * 1000 * (1000 + 2048 + 1000 + 1000 + 1)
    lstm2 = 4 * 1000 * (2048 + 1000 + 1000 + 1)
    attention = 512 * (2048 + 1000 + 1)
    words = 10_010 * 1000 + 10_010 * 1001
    assert sum(p.numel() for p in decoder.parameters()) == lstm1 + lstm2 + attention + words


@pytest.mark.parametrize(
    ("setting", "word"),
    [({"memory_width": 0}, "memory_width"), ({"dropout": 1.0}, "dropout"), ({"hidden_dim": 0}, "hidden_dim")],
)
def test_wrong_settings_are_named(setting: dict, word: str) -> None:
    with pytest.raises(ValueError, match=f"decoder.{word}"):
        build_updown(**setting)
