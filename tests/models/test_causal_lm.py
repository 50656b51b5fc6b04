"""The project's own decoder beyond the contract: weights from a folder, its room for image tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from easycap.errors import UserError
from easycap.models.decoders.causal_lm import CausalLM
from easycap.models.decoders.language_models import Tune, architecture_of
from easycap.types import Memory

TINY = {
    "width": 16,
    "num_layers": 2,
    "num_heads": 2,
    "max_positions": 12,
    "max_length": 6,
    "dropout": 0.0,
    "architecture": None,
    "embedding": "random",
    "tune": Tune.all,
    "lora_rank": 2,
    "lora_alpha": 4.0,
    "bos": True,
    "predict_special": True,
}
IDS = {"vocab_size": 30, "pad_id": 0, "bos_id": 1, "eos_id": 2, "subword_ids": None}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 with a vocabulary of its own, as it would lie on disk."""
    folder = tmp_path_factory.mktemp("gpt2")
    config = GPT2Config(
        vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=12, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_pretrained_blocks_are_kept_and_the_table_is_new(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = GPT2LMHeadModel.from_pretrained(saved)
    capsys.readouterr()
    decoder = CausalLM(**TINY, pretrained=str(saved), **IDS)
    assert capsys.readouterr().err == ""  # no bar of transformers
    mine, theirs = decoder.lm.state_dict(), source.state_dict()
    assert torch.equal(mine["transformer.h.1.mlp.c_fc.weight"], theirs["transformer.h.1.mlp.c_fc.weight"])
    assert torch.equal(mine["transformer.wpe.weight"], theirs["transformer.wpe.weight"])
    table = decoder.lm.get_input_embeddings().weight
    assert table.shape == (30, 16)
    assert not torch.equal(table, theirs["transformer.wte.weight"][:30])
    assert decoder.lm.get_output_embeddings().weight is table


def test_other_sizes_than_the_weights_are_named(saved: Path) -> None:
    with pytest.raises(ValueError, match="decoder.num_layers=2"):
        CausalLM(**(TINY | {"num_layers": 3}), pretrained=str(saved), **IDS)


def test_the_architecture_of_another_model_than_the_weights_is_refused(saved: Path) -> None:
    """A checkpoint is built from the architecture: it would be one that nothing can load."""
    own = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 12}
    CausalLM(**(TINY | {"architecture": own}), pretrained=str(saved), **IDS)
    with pytest.raises(ValueError, match="not the model of decoder.pretrained=.*architecture=null"):
        CausalLM(**(TINY | {"architecture": own | {"n_layer": 3}}), pretrained=str(saved), **IDS)


@pytest.mark.parametrize("own_pad", [7, 49])
def test_the_row_without_gradient_is_that_of_our_pad(tmp_path: Path, own_pad: int) -> None:
    """A Llama's own pad may lie beyond the new table, or be a word of ours."""
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "max_position_embeddings": 12}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads, pad_token_id=own_pad)).save_pretrained(tmp_path)
    own = architecture_of(str(tmp_path))
    decoder = CausalLM(**(TINY | {"architecture": own}), pretrained=str(tmp_path), **IDS)
    table = decoder.token_embedding
    assert table.padding_idx == IDS["pad_id"] == decoder.lm.config.pad_token_id
    table(torch.arange(30)).sum().backward()
    assert table.weight.grad is not None
    assert table.weight.grad.ne(0).all(1).tolist() == [False, *[True] * 29]


def test_ids_beyond_the_weights_table_are_named(saved: Path, tmp_path: Path) -> None:
    ids = IDS | {"subword_ids": [[], [], [], *([index] for index in range(3, 30))]}
    CausalLM(**TINY, pretrained=str(saved), **ids)
    words = [*ids["subword_ids"][:-1], [4, 100]]
    with pytest.raises(UserError, match="word vectors for 50 tokens, but its tokenizer has the id 100"):
        CausalLM(**TINY, pretrained=str(saved), **(ids | {"subword_ids": words}))
    folder = shutil.copytree(saved, tmp_path / "lm")
    config = json.loads((folder / "config.json").read_text()) | {"eos_token_id": 60}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"its config \(bos or eos\) has the id 60"):
        CausalLM(**TINY, pretrained=str(folder), **ids)
    CausalLM(**TINY, pretrained=str(folder), **IDS)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be loaded.*decoder.pretrained=null"):
        CausalLM(**TINY, pretrained=str(tmp_path), **IDS)


def test_damaged_weights_are_named(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "lm")
    whole = (saved / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1000])
    with pytest.raises(ValueError, match="cannot be loaded .*incomplete"):
        CausalLM(**TINY, pretrained=str(folder), **IDS)
    tensors = load(whole)
    del tensors["transformer.h.1.mlp.c_fc.bias"]
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
    with pytest.raises(
        ValueError, match="lacks 1 of its model's tensors, e.g. transformer.h.1.mlp.c_fc.bias"
    ):
        CausalLM(**TINY, pretrained=str(folder), **IDS)


def test_too_many_image_tokens_are_refused() -> None:
    decoder = CausalLM(**TINY, pretrained=None, **IDS)
    memory = Memory(torch.zeros(1, 7, 16), torch.ones(1, 7, dtype=torch.bool), {"image": slice(0, 7)})
    with pytest.raises(ValueError, match="7 memory positions do not fit: the decoder has room for 6"):
        decoder.start(memory)


def test_counted_operations_are_those_of_a_hand_count() -> None:
    """A multiply and an add are two: per layer 24 T D^2 for the matrices and 4 T L D for attention over L positions."""
    torch.manual_seed(0)
    decoder = CausalLM(**TINY, pretrained=None, **IDS).eval()
    num_words, positions, width, vocabulary, layers = 5, 3, 16, 30, 2
    memory = Memory(
        torch.randn(1, positions, width),
        torch.ones(1, positions, dtype=torch.bool),
        {"image": slice(0, positions)},
    )

    def matrices_and_attention(read: int, seen: int) -> int:
        return layers * (24 * read * width**2 + 4 * read * seen * width)

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        state = decoder.start(memory)
        assert counter.get_total_flops() == matrices_and_attention(positions, positions)
        decoder(torch.ones(1, num_words, dtype=torch.long), state)
    words = matrices_and_attention(num_words, positions + num_words) + 2 * num_words * width * vocabulary
    assert counter.get_total_flops() == matrices_and_attention(positions, positions) + words
