"""Gradient checkpointing: less memory, the same logits and the same gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from easycap.models.decoders.causal_lm import CausalLM
from easycap.models.decoders.language_models import Tune
from easycap.models.encoders.timm import TimmEncoder
from easycap.training.hardware import checkpoint_gradients
from easycap.types import Memory

GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32,
}  # fmt: skip


def decoder(architecture: dict, *, bos: bool = True) -> CausalLM:
    torch.manual_seed(0)
    return CausalLM(
        width=None, num_layers=None, num_heads=None, max_positions=None, max_length=8, bos=bos, dropout=0.0,
        pretrained=None, architecture=architecture, embedding="random", tune=Tune.all, lora_rank=1, lora_alpha=1.0,
        predict_special=True,        vocab_size=20, pad_id=0, bos_id=1, eos_id=2, subword_ids=None,
    ).train()  # fmt: skip


def read(model: CausalLM) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits and all gradients of two images, one with a masked position, with three captions."""
    torch.manual_seed(1)
    tokens = torch.randn(2, 3, 16, requires_grad=True)
    mask = torch.tensor([[True, True, True], [False, True, True]])
    words = torch.randint(3, 20, (3, 5))
    state = model.start(Memory(tokens, mask, {})).select(torch.tensor([0, 0, 1]))
    logits = model(words, state).logits
    logits.square().mean().backward()
    return logits.detach(), [tokens.grad, *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("architecture", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_checkpointing_changes_neither_logits_nor_gradients(architecture: dict, bos: bool) -> None:
    plain, saving = decoder(architecture, bos=bos), decoder(architecture, bos=bos)
    saving.checkpoint_gradients()
    calls = []
    inner = next(module for name, module in saving.named_modules() if name.endswith(".mlp"))
    inner.register_forward_pre_hook(lambda *args: calls.append(1))
    (logits, gradients), (again, same) = read(plain), read(saving)
    assert torch.allclose(logits, again, atol=1e-6)
    assert len(gradients) == len(same) > 5
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(gradients, same, strict=True))
    assert len(calls) == 2  # forward, and again in the backward pass


@pytest.mark.parametrize("bos", [True, False])
def test_stepping_in_training_sees_the_image_too(bos: bool) -> None:
    model = decoder(GPT2, bos=bos)
    model.checkpoint_gradients()
    words = torch.randint(3, 20, (2, 4))
    memory = Memory(torch.randn(2, 3, 16), torch.ones(2, 3, dtype=torch.bool), {})
    with torch.no_grad():
        state, steps = model.start(memory), []
        for position in range(4):
            logits, state = model.step(words[:, position], state)
            steps.append(logits)
        model.eval()
        assert torch.allclose(torch.stack(steps, 1), model(words, model.start(memory)).logits, atol=1e-5)
        assert model.start(memory).inputs is None  # decoding keeps its cache


def test_a_timm_encoder_gives_the_same_gradients() -> None:
    gradients = []
    for saving in (False, True):
        torch.manual_seed(0)
        encoder = TimmEncoder(
            model="test_vit",
            pretrained=False,
            weights=None,
            image_size=32,
            crop_pct=None,
            pooled=False,
            pool=None,
            squash=False,
        ).train()
        if saving:
            encoder.checkpoint_gradients()
        encoder(torch.ones(1, 3, 32, 32)).patches.square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters() if p.grad is not None])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_parts_without_checkpointing_are_named(caplog) -> None:
    captioner = nn.Module()
    captioner.encoder, captioner.decoder = nn.Linear(1, 1), nn.Linear(1, 1)
    with pytest.raises(ValueError, match="trainer.gradient_checkpointing=true has no effect"):
        checkpoint_gradients(captioner)
    captioner.decoder = decoder(GPT2)
    checkpoint_gradients(captioner)
    assert "this encoder has no gradient checkpointing" in caplog.text
