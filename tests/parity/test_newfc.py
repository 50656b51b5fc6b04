"""The recipe show_and_tell/ruotianluo_fc against ruotianluo/ImageCaptioning.pytorch at 4c48a33, formula by formula.

captioning/models/FCModel.py:14-41 (the LSTM with maxout; dropout on its output alone, not in the state),
captioning/models/AttModel.py:904-945 (the image read first, from a zero state, then bos and the words; layers start as
torch makes them), captioning/modules/losses.py (mean over words).
"""

from __future__ import annotations

import pytest
import torch
from helpers.memories import Factor, close, random_memory, random_words, spread_weights

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.models.decoders.lstm import LSTM, Cell, Init
from easycap.types import Memory

EMBED, HIDDEN, VOCAB = 5, 7, 11


def recipe(name: str = "ruotianluo_fc") -> dict:
    return check(compose([f"experiment=show_and_tell/{name}", "data.root=somewhere"])[0])


def build(embed: int, hidden: int, vocab: int) -> LSTM:
    torch.manual_seed(0)
    settings = {k: v for k, v in recipe()["decoder"].items() if k != "name"}
    return LSTM(**settings | {"embed_dim": embed, "hidden_dim": hidden}, vocab_size=vocab)


def release(decoder: LSTM, memory: Memory, words: torch.Tensor, image: int, dropped: float) -> torch.Tensor:
    """Logits (T,V) of one caption (T,); what dropout lets through is multiplied by `dropped`."""
    p = dict(decoder.named_parameters())
    h, c = torch.zeros(HIDDEN), torch.zeros(HIDDEN)

    def core(x: torch.Tensor) -> torch.Tensor:
        nonlocal h, c
        sums = p["lstm.from_input.weight"] @ x + p["lstm.from_input.bias"]
        sums = sums + p["lstm.from_hidden.weight"] @ h + p["lstm.from_hidden.bias"]
        write, forget, show = (1 / (1 + torch.exp(-part)) for part in sums[: 3 * HIDDEN].view(3, HIDDEN))
        a, b = sums[3 * HIDDEN :].view(2, HIDDEN)
        c = forget * c + write * torch.where(a > b, a, b)
        h = show * torch.tanh(c)
        return h * dropped

    for token, valid in zip(memory.tokens[image], memory.mask[image], strict=True):
        if valid:
            core(token)
    outputs = [core(p["embedding.weight"][word]) for word in words]
    return torch.stack([p["output.weight"] @ output + p["output.bias"] for output in outputs])


@pytest.mark.parametrize("training", [False, True])
def test_equals_the_release_with_dropout_on_the_output_alone(training: bool) -> None:
    decoder = spread_weights(build(EMBED, HIDDEN, VOCAB))
    assert decoder.dropout.p == 0.5 and decoder.dropout_inputs.p == 0.0
    decoder.dropout = Factor(3.0)
    decoder.train(training)
    memory, words = random_memory(EMBED), random_words(VOCAB)
    logits = decoder(words, decoder.start(memory)).logits
    for image in range(len(words)):
        close(logits[image], release(decoder, memory, words[image], image, 3.0 if training else 1.0))


def test_words_start_as_there() -> None:
    decoder = build(512, 512, 1000)
    assert float(decoder.embedding.weight.detach().std()) == pytest.approx(1.0, rel=0.01)
    limit = 512**-0.5
    for name, weight in decoder.named_parameters():
        if not name.startswith("embedding"):
            assert float(weight.detach().abs().max()) <= limit, name
            assert float(weight.detach().std()) == pytest.approx(0.0255, rel=0.1), name


def test_samples_and_captions_are_of_twenty_tokens() -> None:
    first, second = recipe(), recipe("ruotianluo_fc_cider")
    assert first["decoding"]["max_length"] == second["decoding"]["max_length"] == 20
    assert second["objective"]["max_length"] == 20
    assert first["decoder"]["cell"] is Cell.maxout and first["decoder"]["init"] is Init.torch
