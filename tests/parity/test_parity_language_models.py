"""decoder=causal_lm against Hugging Face's own models, of each family, saved to a folder and loaded from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.memories import close, random_memory, random_words
from transformers import AutoConfig, AutoModelForCausalLM, Cache, DynamicCache, PreTrainedModel

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.models.decoders.causal_lm import CausalLM
from easycap.models.decoders.language_models import Tune, architecture_of
from easycap.types import Memory
from easycap.utils.attention_adapter import can_pack, pick_attention
from easycap.utils.transformers_adapter import cache_argument, untrained

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
    "bert": {"intermediate_size": 24, "is_decoder": True},
    "gemma2": GATED | {"sliding_window": 13},  # of every other layer
    "olmo2": GATED,
    "opt": {"ffn_dim": 24, "word_embed_proj_dim": 16},
    "phi3": GATED,
}
OURS = {
    "width": None,
    "num_layers": None,
    "num_heads": None,
    "max_positions": None,
    "max_length": 6,
    "dropout": 0.0,
    "architecture": None,
    "embedding": "pretrained",
    "tune": Tune.all,
    "lora_rank": 2,
    "lora_alpha": 4.0,
    "bos": True,
    "predict_special": True,
    "vocab_size": 30,
    "pad_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "subword_ids": [[i] for i in range(30)],
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


def model_itself(folder: Path) -> PreTrainedModel:
    settings = {"dtype": torch.float32, "attn_implementation": "eager"}  # the one that all families have
    return AutoModelForCausalLM.from_pretrained(folder, **settings).eval()


def theirs(folder: Path, memory: Memory, words: torch.Tensor) -> torch.Tensor:
    """Logits of the words when Hugging Face's model reads each image alone, without masked positions or a cache."""
    lm = model_itself(folder)
    rows = []
    for tokens, valid, caption in zip(memory.tokens, memory.mask, words, strict=True):
        embedded = torch.cat([tokens[valid], lm.get_input_embeddings()(caption)]).unsqueeze(0)
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


@pytest.mark.parametrize("bos", [True, False])
def test_without_padding_logits_and_gradients_are_the_same(folder: Path, bos: bool) -> None:
    decoder = CausalLM(**OURS | {"bos": bos}, pretrained=str(folder)).eval()
    words = random_words(30)
    real = words != 0
    decoder.start(random_memory(16))
    packs = ("gpt2", "gpt_neox", "llama", "smollm", "smollm3", "qwen2", "qwen3")
    assert can_pack(decoder.lm) == (folder.name[:-1] in packs)
    found = []
    rows = torch.tensor([0, 2, 2, 1])[: len(words)]  # an image with two captions
    for read in (
        lambda memory: decoder(words, decoder.start(memory).select(rows)).logits[real],
        lambda memory: decoder.read_real(words, real, memory, rows).logits,
    ):
        memory = random_memory(16)
        memory.tokens.requires_grad_()
        decoder.zero_grad()
        logits = read(memory)
        logits = logits[real] if logits.ndim == 3 else logits
        logits.sin().sum().backward()
        weights = [p.grad for p in decoder.parameters() if p.grad is not None]
        found.append((logits, memory.tokens.grad, *weights))
    assert found[0][0].std() > 0.1 and len(found[0]) == len(found[1])
    for padded, packed in zip(*found, strict=True):
        torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-4)


def clipcap(folder: Path, memory: Memory, words: torch.Tensor) -> torch.Tensor:
    """Logits of the words as ClipCap has them: each word from the prefix and the words before it, nothing between.

    rmokady/CLIP_prefix_caption at 1ad805a, train.py:232-241 (inputs are the prefix and the embedded words) and 321-324
    (the logits of n words begin one before the first).
    """
    lm = model_itself(folder)
    embed = lm.get_input_embeddings()
    rows = []
    for tokens, valid, caption in zip(memory.tokens, memory.mask, words[:, 1:], strict=True):
        prefix, logits = [token for token, is_there in zip(tokens, valid, strict=True) if is_there], []
        for num_words in range(len(caption) + 1):
            inputs = torch.stack([*prefix, *embed(caption[:num_words])])
            logits.append(lm(inputs_embeds=inputs.unsqueeze(0), use_cache=False).logits[0, -1])
        rows.append(torch.stack(logits))
    return torch.stack(rows)


@torch.no_grad()
def test_without_bos_logits_are_clipcaps(folder: Path) -> None:
    settings = check(compose(["experiment=clipcap/mlp_frozen", "data.root=somewhere"])[0])["decoder"]
    assert settings["bos"] is False and settings["tune"] is Tune.none
    decoder = CausalLM(**(OURS | {"bos": settings["bos"]}), pretrained=str(folder)).eval()
    memory, words = random_memory(16), random_words(30)
    expected = clipcap(folder, memory, words)
    close(decoder(words, decoder.start(memory)).logits, expected)
    assert (theirs(folder, memory, words) - expected).abs().max() > 0.1
    state = decoder.start(memory)
    for t in range(words.shape[1]):
        logits, state = decoder.step(words[:, t], state)
        close(logits, expected[:, t])
    one = Memory(memory.tokens[:1, :1], memory.mask[:1, :1], {"image": slice(0, 1)})
    close(decoder(words[:1], decoder.start(one)).logits, clipcap(folder, one, words[:1]))


@torch.no_grad()
def test_keys_and_values_are_hugging_faces(folder: Path) -> None:
    """Those of the whole sentence read at once by the model itself, without a cache of ours."""
    decoder = CausalLM(**OURS, pretrained=str(folder)).eval()
    memory, words = random_memory(16), random_words(30)
    memory = memory._replace(mask=torch.ones_like(memory.mask))
    state = decoder.start(memory)
    for t in range(words.shape[1]):
        _, state = decoder.step(words[:, t], state)
    lm = model_itself(folder)
    embedded = torch.cat([memory.tokens, lm.get_input_embeddings()(words)], dim=1)
    kept = DynamicCache()
    lm(inputs_embeds=embedded, use_cache=True, **{cache_argument(type(lm)): kept})
    assert len(state.layers) == len(kept.layers) == 2
    for (keys, values), layer in zip(state.layers, kept.layers, strict=True):
        close(keys, layer.keys)
        close(values, layer.values)


@torch.no_grad()
def test_a_state_is_not_written_to(folder: Path) -> None:
    """Beam search steps from one state several times."""
    decoder = CausalLM(**OURS, pretrained=str(folder)).eval()
    state, words = decoder.start(random_memory(16)), random_words(30)
    first, _ = decoder.step(words[:, 0], state)
    decoder.step(words[:, 1], state)
    assert torch.equal(decoder.step(words[:, 0], state)[0], first)


def test_a_model_and_its_language_model_call_the_cache_the_same(folder: Path) -> None:
    lm = AutoModelForCausalLM.from_pretrained(folder)
    name = cache_argument(type(lm))
    assert name == cache_argument(type(lm.base_model)) and name in ("past_key_values", "cache")


@pytest.mark.parametrize(("family", "fused"), [("llama", "sdpa"), ("gemma2", "eager"), ("gpt_oss", "eager")])
def test_fused_attention_is_used_where_the_model_has_it(family: str, fused: str) -> None:
    with torch.device("meta"):
        lm = untrained({"model_type": family} | SIZES | GATED, vocab_size=30, special={}, dropout=0.0)
    pick_attention(lm, "cuda")
    assert lm.config._attn_implementation == fused
    pick_attention(lm, "cpu")
    assert lm.config._attn_implementation == "eager"


class _NoCache(torch.nn.Module):
    def forward(self, input_ids: torch.Tensor, encoder_states: dict[str, torch.Tensor] | None = None): ...


class _Renamed(torch.nn.Module):
    def forward(self, input_ids: torch.Tensor, memory_of_words: Cache | None = None, labels: Any = None): ...


class _Tuples(torch.nn.Module):
    def forward(self, input_ids: torch.Tensor, past_key_values: tuple[tuple[torch.Tensor]] | None = None): ...


class _Dict(torch.nn.Module):
    def forward(self, input_ids: torch.Tensor, cache: dict[str, torch.Tensor] | None = None): ...


@pytest.mark.parametrize(
    ("model", "name"),
    [(_NoCache, None), (_Renamed, "memory_of_words"), (_Tuples, "past_key_values"), (_Dict, None)],
)
def test_the_argument_of_keys_and_values_is_found_by_its_type(model: type, name: str | None) -> None:
    assert cache_argument(model) == name


@torch.no_grad()
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_word_does_not_see_those_after_it(family: str) -> None:
    """BERT's config looks both ways unless told; a captioner trained so would copy what it is to say."""
    settings = OURS | {
        "architecture": {"model_type": family} | SIZES,
        "embedding": "random",
        "subword_ids": None,
    }
    decoder = CausalLM(**settings, pretrained=None).eval()
    words = random_words(30)
    state = decoder.start(random_memory(16))
    before = decoder(words, state).logits
    after = decoder(torch.cat([words[:, :-1], words[:, -1:] + 1], dim=1), state).logits
    close(after[:, :-1], before[:, :-1])
    assert not torch.equal(after[:, -1], before[:, -1])


def test_a_stored_architecture_builds_the_same_model(folder: Path) -> None:
    """A checkpoint is rebuilt from its config alone, the folder gone."""
    loaded = CausalLM(**OURS, pretrained=str(folder)).eval()
    settings = OURS | {
        "embedding": "random",
        "subword_ids": None,
        "architecture": architecture_of(str(folder)),
    }
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
    settings = OURS | {"tune": tune, "embedding": "random", "subword_ids": None, "vocab_size": 12}
    decoder = CausalLM(**settings, pretrained=str(folder))
    for layer in (decoder.lm.get_input_embeddings(), decoder.lm.get_output_embeddings()):
        assert layer.weight.requires_grad and layer.weight.shape == (12, 16)
    rest = [n for n, p in decoder.named_parameters() if p.requires_grad and p.shape[0] != 12]
    assert all("lora_" in name for name in rest)


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ({"model_type": "lama"}, "decoder.architecture must be the config of a transformers language model"),
        ({"hidden_size": 16}, "decoder.architecture must be the config of a transformers language model"),
        ({"model_type": "vit"}, "not a causal language model"),
        ({"model_type": "mamba"}, "mamba model cannot be used"),
        ({"model_type": "bloom"}, "bloom model cannot be used"),
        ({"model_type": "jamba"}, "jamba model cannot be used"),
        ({"model_type": "gemma3"}, "gemma3 model cannot be used"),
    ],
)
def test_models_that_cannot_be_driven_are_refused(architecture: dict, words: str) -> None:
    settings = OURS | {"architecture": architecture, "embedding": "random", "subword_ids": None}
    with pytest.raises(ValueError, match=words):
        CausalLM(**settings, pretrained=None)


def test_no_more_is_read_than_an_attention_window_holds() -> None:
    """A masked position counts in a window: the words before it would depend on padding."""
    architecture = {"model_type": "mistral", "sliding_window": 10} | SIZES | GATED
    settings = OURS | {"architecture": architecture, "embedding": "random", "subword_ids": None}
    assert CausalLM(**settings, pretrained=None).max_positions == 10
    with pytest.raises(ValueError, match="max_positions=12 is more than the language model's own 10"):
        CausalLM(**(settings | {"max_positions": 12}), pretrained=None)


def test_random_weights_are_not_frozen() -> None:
    settings = OURS | {
        "tune": Tune.none,
        "embedding": "random",
        "subword_ids": None,
        "width": 16,
        "num_heads": 2,
    }
    with pytest.raises(ValueError, match="decoder.tune=none would freeze random weights"):
        CausalLM(**settings, pretrained=None)


def test_without_peft_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ValueError, match=r'pip install "easycap\[lora\]"'):
        CausalLM(**(OURS | {"tune": Tune.lora}), pretrained=str(folder))
