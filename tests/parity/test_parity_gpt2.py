"""Our GPT-2 against transformers': the same weights of a seed, and the same numbers, bit for bit."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from helpers.gpt2_of_transformers import gpt2_of_transformers

from easycap.models.decoders.gpt2_model import GPT2, GPT2Config, from_transformers
from easycap.utils import transformers_adapter as adapter
from easycap.utils.attention_adapter import pick_attention, read_packed

PLAIN = {"model_type": "gpt2", "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 40}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MASK = torch.ones(4, 5, dtype=torch.bool)
MASK[0, :2] = MASK[1, 3] = False
WORDS = torch.randint(3, 50, (4, 7), generator=torch.manual_seed(1))
REAL = torch.ones(4, 7, dtype=torch.bool)
REAL[1, 4:] = False


def own(seed: int, **sizes: Any) -> GPT2:
    config = GPT2Config.of(PLAIN | sizes, vocab_size=50, dropout=0.1)
    assert config is not None
    torch.manual_seed(seed)
    return GPT2(config)


def theirs(seed: int, **sizes: Any) -> Any:
    torch.manual_seed(seed)
    return adapter.untrained(PLAIN | sizes, vocab_size=50, special=SPECIAL, dropout=0.1)


@pytest.mark.parametrize(
    "sizes", [{}, {"n_inner": 48, "initializer_range": 0.1, "layer_norm_epsilon": 1e-3}, {"hidden_size": 8}]
)
def test_a_seed_gives_the_same_weights_and_the_same_numbers_after_them(sizes: dict[str, Any]) -> None:
    lm, after = own(3, **sizes).state_dict(), torch.rand(3)
    other, after_theirs = theirs(3, **sizes).state_dict(), torch.rand(3)
    assert list(lm) == list(other) and torch.equal(after, after_theirs)
    for name, weights in lm.items():
        assert torch.equal(weights, other[name]), name
    assert lm["lm_head.weight"].data_ptr() == lm["transformer.wte.weight"].data_ptr()


def read(lm: Any, *, implementation: str, train: bool, packed: bool, half: bool) -> list[torch.Tensor]:
    """The logits of words after image tokens, keys and values of what is not masked, the gradient of each parameter."""
    lm.train(train).zero_grad()
    lm.set_attn_implementation(implementation)
    argument = adapter.cache_argument(type(lm))
    memory = torch.randn(4, 5, 32, generator=torch.manual_seed(2))
    torch.manual_seed(5)  # of dropout
    with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
        positions = (MASK.cumsum(1) - 1).clamp(min=0)
        _, layers = adapter.read(
            lm.base_model, (), argument=argument, mask=MASK, positions=positions, inputs_embeds=memory
        )
        if packed:
            embedded, rows = lm.get_input_embeddings()(WORDS)[REAL], torch.tensor([0, 2, 2, 3])
            logits = read_packed(lm, memory, MASK, embedded=embedded, real=REAL, rows=rows)
        else:
            mask = torch.cat([MASK, torch.ones_like(REAL)], 1)
            positions = mask.cumsum(1)[:, -7:] - 1
            output, layers = adapter.read(
                lm, layers, argument=argument, mask=mask, positions=positions, input_ids=WORDS
            )
            logits = output.logits
    logits.float().logsumexp(-1).sum().backward()
    gradients = [parameter.grad for parameter in lm.parameters()]
    seen = torch.cat([MASK, REAL.new_ones(4, layers[0][0].shape[2] - 5)], 1)
    kept = [tensor.transpose(1, 2)[seen].detach() for layer in layers for tensor in layer]
    return [logits.detach(), *kept, *gradients]


@pytest.mark.parametrize(("implementation", "packed"), [("eager", False), ("eager", True), ("sdpa", False)])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_logits_keys_and_gradients_are_the_same(
    implementation: str, packed: bool, train: bool, half: bool
) -> None:
    way = {"implementation": implementation, "packed": packed, "train": train, "half": half}
    pick_attention(theirs(0), "cpu")  # which knows packed attention from then on
    for ours, their in zip(read(own(3), **way), read(theirs(3), **way), strict=True):
        assert torch.equal(ours, their)


def test_checkpointing_changes_nothing() -> None:
    def gradients(lm: GPT2) -> list[torch.Tensor]:
        torch.manual_seed(5)
        lm.train()(input_ids=WORDS).logits.square().sum().backward()
        return [parameter.grad for parameter in lm.parameters()]

    checkpointed = own(3)
    adapter.checkpoint_gradients(checkpointed)
    assert checkpointed.transformer.checkpointing
    for plain, again in zip(gradients(own(3)), gradients(checkpointed), strict=True):
        torch.testing.assert_close(again, plain)


def test_the_last_logits_alone() -> None:
    lm = own(3).eval()
    torch.testing.assert_close(
        lm(input_ids=WORDS, logits_to_keep=2).logits, lm(input_ids=WORDS).logits[:, -2:]
    )


def test_weights_of_transformers_are_taken_over() -> None:
    there = theirs(3).eval()
    there.set_attn_implementation("eager")
    here = from_transformers(there, dropout=0.1)
    assert isinstance(here, GPT2) and here.lm_head.weight is here.transformer.wte.weight
    assert torch.equal(here.eval()(input_ids=WORDS).logits, there(input_ids=WORDS).logits)
    assert torch.equal(gpt2_of_transformers(here)(input_ids=WORDS).logits, here(input_ids=WORDS).logits)


@pytest.mark.parametrize(
    "other",
    [
        {"activation_function": "relu"},
        {"scale_attn_by_inverse_layer_idx": True},
        {"reorder_and_upcast_attn": True},
        {"tie_word_embeddings": False},
        {"n_head": 5},
        {"n_layer": "two"},
        {"n_embd": 0},
        {"model_type": "llama"},
    ],
)
def test_other_models_are_left_to_transformers(other: dict[str, Any]) -> None:
    assert GPT2Config.of(PLAIN | other, vocab_size=50, dropout=0.1) is None


def test_an_unusual_gpt2_stays_one_of_transformers() -> None:
    lm = theirs(3, scale_attn_by_inverse_layer_idx=True)
    assert from_transformers(lm, dropout=0.1) is lm
