"""Counted operations of a caption against a count by hand; a multiply and an add are two."""

from __future__ import annotations

import pytest
import torch
from helpers.toy_decoder import made
from torch import nn

from easycap.generation.beam import Beam, OnEnd
from easycap.generation.flops import flops_per_caption
from easycap.generation.greedy import Greedy
from easycap.generation.sample import Sample
from easycap.models.captioner import Captioner
from easycap.models.decoders.causal_lm import CausalLM, Tune
from easycap.models.decoders.lstm import LSTM, Cell, Init
from easycap.models.encoders.small import SmallEncoder
from easycap.models.image_tokens.split import Split
from easycap.types import Inputs

IDS = {"pad_id": 0, "bos_id": 1, "eos_id": 2}
RULES = {
    "max_length": None,
    "min_length": 0,
    "no_repeat_ngram": 0,
    "may_repeat": (),
    "allow_unk": True,
}
WORDS, VOCABULARY, TOKENS, WIDTH, LAYERS = 5, 30, 3, 16, 2


def captioner_with(decoder: nn.Module) -> Captioner:
    encoder = SmallEncoder(image_size=32, widths=(8, 16), blocks_per_stage=1)
    tokens = Split(count=TOKENS, normalize=False, channels=16, memory_dim=decoder.memory_dim)
    return Captioner(encoder=encoder, image_tokens=tokens, decoder=decoder)


@pytest.fixture
def captioner() -> Captioner:
    torch.manual_seed(0)
    sizes = {"width": WIDTH, "num_layers": LAYERS, "num_heads": 2, "max_positions": 20, "max_length": WORDS}
    options = {"dropout": 0.1, "pretrained": None, "embedding": "random", "subword_ids": None}
    options |= {"architecture": None, "tune": Tune.all, "lora_rank": 1, "lora_alpha": 1.0, "bos": True}
    options["predict_special"] = True
    return captioner_with(CausalLM(**sizes, **options, vocab_size=VOCABULARY, **IDS))


def counted(captioner: Captioner, generator: object) -> float:
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    return flops_per_caption(captioner, Inputs(image), generator, eos_id=2)


def seeing() -> int:
    """Two convolutions of 3 x 3, at 16 x 16 and 8 x 8, and the map to the tokens."""
    return 2 * 9 * (3 * 8 * 16**2 + 8 * 16 * 8**2) + 2 * 16 * TOKENS * WIDTH


def reading(positions: int, before: int) -> int:
    """Per layer 24 D^2 for each position's matrices and 4 D for each pair in its attention."""
    return LAYERS * (24 * positions * WIDTH**2 + 4 * positions * (before + positions) * WIDTH)


def test_a_greedy_caption(captioner: Captioner) -> None:
    steps = sum(reading(1, TOKENS + word) + 2 * WIDTH * VOCABULARY for word in range(WORDS))
    assert counted(captioner, made(Greedy, **RULES)) == seeing() + reading(TOKENS, 0) + steps


def test_what_the_model_says_does_not_matter(captioner: Captioner) -> None:
    before = counted(captioner, made(Greedy, **RULES))
    with torch.no_grad():  # eos follows everything
        captioner.decoder.lm.transformer.ln_f.bias.copy_(captioner.decoder.lm.lm_head.weight[2] * 1e4)
    assert counted(captioner, made(Greedy, **RULES)) == before


def test_beams_cost_more_and_samples_share_the_image(captioner: Captioner) -> None:
    one = counted(captioner, made(Greedy, **RULES))
    beam = made(Beam, **RULES, num_beams=3, length_penalty=1.0, early_stopping=True, on_end=OnEnd.refill)
    first = reading(1, TOKENS) + 2 * WIDTH * VOCABULARY
    steps = sum(reading(1, TOKENS + word) + 2 * WIDTH * VOCABULARY for word in range(1, WORDS))
    assert counted(captioner, beam) == seeing() + reading(TOKENS, 0) + first + 3 * steps
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0}
    two = counted(captioner, made(Sample, **RULES, **settings, num_samples=2))
    assert two == one - (seeing() + reading(TOKENS, 0)) / 2


def test_a_recurrent_decoder_is_seen() -> None:
    decoder = LSTM(
        embed_dim=WIDTH,
        hidden_dim=24,
        max_length=WORDS,
        dropout=0.0,
        vocab_size=VOCABULARY,
        dropout_inputs=True,
        cell=Cell.lstm,
        init=Init.im2txt,
    )
    cell = 8 * 24 * (WIDTH + 24)  # four gates
    wanted = seeing() + TOKENS * cell + WORDS * (cell + 2 * 24 * VOCABULARY)
    assert counted(captioner_with(decoder), made(Greedy, **RULES)) == wanted


def test_the_captioner_is_left_as_it_was(captioner: Captioner) -> None:
    captioner.train()
    counted(captioner, made(Greedy, **RULES))
    assert captioner.training and captioner.decoder.training
