"""decoder=causal_lm against Hugging Face's own models, of each family, saved to a folder and loaded from there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tools import close, random_memory, random_words
from transformers import AutoConfig, AutoModelForCausalLM

from easycap.models.decoders.causal_lm import CausalLM
from easycap.models.decoders.language_models import Tune, architecture_of
from easycap.types import Memory

SIZES = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GATED = {"intermediate_size": 24, "num_key_value_heads": 2, "head_dim": 4}
FAMILIES = {
    "gpt2": {},
    "llama": GATED | {"tie_word_embeddings": False},
    "smollm": GATED | {"model_type": "llama", "tie_word_embeddings": True},
    "smollm3": GATED,
    "qwen2": GATED,
    "qwen3": GATED,
    "mistral": GATED,
    "gpt_neox": {"intermediate_size": 24},
}
OURS = {
    "width": None,
    "num_layers": None,
    "num_heads": None,
    "max_positions": None,
    "max_words": 6,
    "dropout": 0.0,
    "architecture": None,
    "embedding": "pretrained",
    "tune": Tune.all,
    "lora_rank": 2,
    "lora_alpha": 4.0,
    "vocab_size": 30,
    "pad_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "pieces": [[i] for i in range(30)],
}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of a family with random weights, saved in half precision as the big ones are."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(**({"model_type": request.param} | SIZES | FAMILIES[request.param]))
    lm = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp(request.param)
    lm.to(torch.bfloat16).save_pretrained(path)
    return path


def theirs(folder: Path, memory: Memory, words: torch.Tensor) -> torch.Tensor:
    """Logits of the words when Hugging Face's model reads each image alone, without masked slots or a cache."""
    lm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows = []
    for slots, valid, caption in zip(memory.tokens, memory.mask, words, strict=True):
        embedded = torch.cat([slots[valid], lm.get_input_embeddings()(caption)]).unsqueeze(0)
        rows.append(lm(inputs_embeds=embedded, use_cache=False).logits[0, int(valid.sum()) :])
    return torch.stack(rows)


@torch.no_grad()
def test_logits_are_hugging_faces(folder: Path) -> None:
    decoder = CausalLM(**OURS, pretrained=str(folder)).eval()
    memory, words = random_memory(16), random_words(30)
    expected = theirs(folder, memory, words)
    assert expected.std() > 0.1
    close(decoder(words, decoder.start(memory)).logits, expected)
    state = decoder.start(memory)
    for t in range(words.shape[1]):
        logits, state = decoder.step(words[:, t], state)
        close(logits, expected[:, t])


def test_a_stored_architecture_builds_the_same_model(folder: Path) -> None:
    """A checkpoint is rebuilt from its config alone, the folder gone."""
    loaded = CausalLM(**OURS, pretrained=str(folder)).eval()
    settings = OURS | {"embedding": "random", "pieces": None, "architecture": architecture_of(str(folder))}
    rebuilt = CausalLM(**settings, pretrained=None).eval()
    rebuilt.load_state_dict(loaded.state_dict())
    memory, words = random_memory(16), random_words(30)
    close(*(decoder(words, decoder.start(memory)).logits for decoder in (rebuilt, loaded)))
    assert all(p.dtype == torch.float32 for p in rebuilt.parameters())


def test_lora_starts_as_the_model_itself_and_trains_nothing_else(folder: Path) -> None:
    decoder = CausalLM(**(OURS | {"tune": Tune.lora}), pretrained=str(folder))
    memory, words = random_memory(16), random_words(30)
    logits = decoder(words, decoder.start(memory)).logits
    close(logits, theirs(folder, memory, words))
    logits.square().sum().backward()
    trained = {name for name, p in decoder.named_parameters() if p.grad is not None}
    assert trained and all("lora_" in name for name in trained)
    assert trained == {name for name, p in decoder.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    assert (decoder(words, decoder.start(memory)).logits - logits).abs().max() > 1e-3


def test_a_frozen_model_trains_what_is_before_it(folder: Path) -> None:
    decoder = CausalLM(**(OURS | {"tune": Tune.none, "dropout": 0.5}), pretrained=str(folder)).train()
    memory, words = random_memory(16), random_words(30)
    tokens = memory.tokens.clone().requires_grad_()
    logits = decoder(words, decoder.start(memory._replace(tokens=tokens))).logits
    close(logits, theirs(folder, memory, words))  # and so without dropout
    logits.square().sum().backward()
    assert torch.equal(tokens.grad.abs().amax(2) > 0, memory.mask)
    assert not any(p.requires_grad for p in decoder.parameters())


@pytest.mark.parametrize("tune", [Tune.lora, Tune.none])
def test_new_words_are_trained_though_the_model_is_not(folder: Path, tune: Tune) -> None:
    settings = OURS | {"tune": tune, "embedding": "random", "pieces": None, "vocab_size": 12}
    decoder = CausalLM(**settings, pretrained=str(folder))
    for layer in (decoder.lm.get_input_embeddings(), decoder.lm.get_output_embeddings()):
        assert layer.weight.requires_grad and layer.weight.shape == (12, 16)
    rest = [n for n, p in decoder.named_parameters() if p.requires_grad and p.shape[0] != 12]
    assert all("lora_" in name for name in rest)


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ({"model_type": "lama"}, "decoder.architecture must be the config of a language model"),
        ({"hidden_size": 16}, "decoder.architecture must be the config of a language model"),
        ({"model_type": "vit"}, "no causal language model"),
        ({"model_type": "mamba"}, "mamba model cannot be used"),
        ({"model_type": "bloom"}, "bloom model cannot be used"),
    ],
)
def test_models_that_cannot_be_driven_are_refused(architecture: dict, words: str) -> None:
    settings = OURS | {"architecture": architecture, "embedding": "random", "pieces": None}
    with pytest.raises(ValueError, match=words):
        CausalLM(**settings, pretrained=None)


def test_random_weights_are_not_frozen() -> None:
    settings = OURS | {"tune": Tune.none, "embedding": "random", "pieces": None, "width": 16, "num_heads": 2}
    with pytest.raises(ValueError, match="decoder.tune=none would freeze random weights"):
        CausalLM(**settings, pretrained=None)


def test_without_peft_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ValueError, match=r"pip install 'easycap\[lora\]'"):
        CausalLM(**(OURS | {"tune": Tune.lora}), pretrained=str(folder))
