"""LoRA merged for a while: the same function, and the model's own weights stay as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from easycap.generation.greedy import Greedy
from easycap.generation.logits_processors import DecodingSettings
from easycap.models.decoders.causal_lm import CausalLM
from easycap.models.decoders.language_models import Tune
from easycap.models.decoders.merged_lora import merged_lora
from easycap.types import Memory

pytest.importorskip("peft")
LLAMA = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
LLAMA |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}


class Words:
    pad_id, bos_id, eos_id, unk_id = 0, 1, 2, 3


def decoder_of(architecture: dict[str, Any]) -> CausalLM:
    torch.manual_seed(0)
    decoder = CausalLM(
        vocab_size=50, pad_id=0, bos_id=1, eos_id=2, subword_ids=[], width=None, num_layers=None, num_heads=None,
        max_positions=None, max_length=8, bos=True, dropout=0.0, pretrained=None, architecture=architecture,
        embedding="random", tune=Tune.lora, lora_rank=4, lora_alpha=8.0, predict_special=True,
    )  # fmt: skip
    for name, weight in decoder.named_parameters():
        torch.nn.init.normal_(weight, std=0.5 if "lora" in name else 0.3)
    return decoder.eval()


def memory_of(decoder: CausalLM) -> Memory:
    tokens = torch.randn(3, 4, decoder.memory_dim, generator=torch.Generator().manual_seed(1))
    return Memory(tokens, torch.ones(3, 4, dtype=torch.bool), {"image": slice(0, 4)})


@torch.no_grad()
def logits_of(decoder: CausalLM) -> torch.Tensor:
    return decoder(torch.tensor([[1, 5, 6], [1, 7, 8], [1, 9, 9]]), decoder.start(memory_of(decoder))).logits


@pytest.mark.parametrize("architecture", [LLAMA, GPT2], ids=lambda one: one["model_type"])
def test_logits_are_the_same_and_nothing_is_left_behind(architecture: dict[str, Any]) -> None:
    decoder = decoder_of(architecture)
    before, expected = {n: t.clone() for n, t in decoder.state_dict().items()}, logits_of(decoder)
    trained = [name for name, weight in decoder.named_parameters() if weight.requires_grad]
    with merged_lora(decoder.lm):
        assert not any("lora" in name for name, _ in decoder.named_parameters())
        torch.testing.assert_close(logits_of(decoder), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(logits_of(decoder), expected)
    assert [name for name, weight in decoder.named_parameters() if weight.requires_grad] == trained
    assert all(torch.equal(tensor, before[name]) for name, tensor in decoder.state_dict().items())
    with torch.no_grad():
        for name, weight in decoder.named_parameters():
            if "lora_B" in name:
                weight.zero_()
    assert not torch.allclose(logits_of(decoder), expected), "LoRA has a part in them"


def test_it_is_undone_when_generation_fails() -> None:
    decoder = decoder_of(LLAMA)
    names = list(decoder.state_dict())
    with pytest.raises(KeyboardInterrupt), merged_lora(decoder.lm):
        raise KeyboardInterrupt
    assert list(decoder.state_dict()) == names


def test_captions_of_many_images_are_made_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, seen = decoder_of(LLAMA), []
    settings = DecodingSettings(
        max_length=None, min_length=0, no_repeat_ngram=0, may_repeat=(), allow_unk=False
    )
    greedy = Greedy(Words(), shared=settings)
    original = CausalLM.step

    def step(self: CausalLM, *given: Any) -> Any:
        seen.append(any("lora" in name for name, _ in self.named_parameters()))
        return original(self, *given)

    monkeypatch.setattr(CausalLM, "step", step)
    alone = greedy(decoder, memory_of(decoder)).words
    assert all(seen)
    seen.clear()
    with decoder.generating(1000):
        assert torch.equal(greedy(decoder, memory_of(decoder)).words, alone)
    assert seen and not any(seen)
    with decoder.generating(2):
        greedy(decoder, memory_of(decoder))
    assert seen[-1], "merging costs more than it saves on a few captions"
