"""Hugging Face's causal language models: sizes, and what is trained: a model whole, through LoRA, or not at all."""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch

from easycap.errors import UserError
from easycap.models.decoders.gpt2_model import GPT2, GPT2Config, from_transformers
from easycap.utils.extras import check_extra
from easycap.utils.native_parts import is_transposed_linear
from easycap.utils.transformers_adapter import LanguageModel, read_config, untrained

_SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id")


class Tune(Enum):
    """What of a language model is trained: all of it, low-rank additions to it (LoRA), or nothing."""

    all = "all"
    lora = "lora"
    none = "none"


def architecture_of(source: str) -> dict[str, Any]:
    """Return what builds the language model `source` (a name on the hub or a folder) without its weights.

    Raises `UserError` if its config.json cannot be had.
    """
    return read_config(source).to_diff_dict()


def gpt2(sizes: dict[str, int | None], max_positions: int | None) -> dict[str, Any]:
    """Return the architecture of a GPT-2 of the given sizes; GPT-2 small's stand in for None."""
    wanted = {
        "n_embd": sizes["width"],
        "n_layer": sizes["num_layers"],
        "n_head": sizes["num_heads"],
        "n_positions": max_positions,
    }
    return {"model_type": "gpt2"} | {name: value for name, value in wanted.items() if value is not None}


def untrained_lm(
    architecture: dict[str, Any], tune: Tune, *, vocab_size: int, special: dict[str, int], dropout: float
) -> LanguageModel:
    """Return a language model with random weights: our own `GPT2` if the architecture is one, else of transformers.

    LoRA needs the layers of transformers, which peft supports.
    """
    config = GPT2Config.of(architecture, vocab_size=vocab_size, dropout=dropout)
    if config is None or tune is Tune.lora:
        return untrained(architecture, vocab_size=vocab_size, special=special, dropout=dropout)
    return GPT2(config)


def own_gpt2(lm: LanguageModel, tune: Tune, *, dropout: float) -> LanguageModel:
    """Return a loaded language model as what `untrained_lm` builds: of a GPT-2 our own, with the same weights."""
    return lm if tune is Tune.lora else from_transformers(lm, dropout=dropout)


def check_architecture(lm: LanguageModel, architecture: dict[str, Any], source: str) -> None:
    """Raise `UserError` unless `architecture`, which a checkpoint is built from, builds `lm`, loaded from `source`."""
    # Its own pad may lie beyond the new table, which the model could not be built with.
    special = {name: getattr(lm.config, name) for name in _SPECIAL}
    with torch.device("meta"):
        built = untrained(architecture, vocab_size=lm.config.vocab_size, special=special, dropout=0.0)
    shapes, wanted = ({name: t.shape for name, t in one.state_dict().items()} for one in (lm, built))
    if shapes != wanted:
        raise UserError(
            f"decoder.architecture={architecture} is not the model of decoder.pretrained={source!r}: set "
            "decoder.architecture=null to use its own"
        )


def check_sizes(lm: LanguageModel, sizes: dict[str, int | None]) -> None:
    """Raise `UserError` naming the sizes (None: any) that are not the language model's own."""
    config = lm.config
    own = {
        "width": config.hidden_size,
        "num_layers": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
    }
    wrong = [f"decoder.{name}={value}" for name, value in own.items() if sizes[name] not in (None, value)]
    if wrong:
        raise UserError(
            f"the language model of decoder.pretrained has other sizes than the config; set {' '.join(wrong)}, or null"
        )


def set_tuning(lm: LanguageModel, tune: Tune, *, new_words: bool, rank: int, alpha: float) -> None:
    """Freeze what is not trained; LoRA's matrices are put in place, in every linear layer but the output layer.

    The word table, in the input and the output layer, is trained all the same where its rows are new.
    """
    if tune is Tune.all:
        return
    lm.requires_grad_(False)
    if tune is Tune.lora:
        _add_lora(lm, rank, alpha)
    if new_words:
        for layer in (lm.get_input_embeddings(), lm.get_output_embeddings()):
            layer.requires_grad_(True)


def _add_lora(lm: LanguageModel, rank: int, alpha: float) -> None:
    """Add W x + (alpha / rank) B A x (Hu et al. 2021, arXiv 2106.09685); B starts at zero."""
    if rank < 1:
        raise UserError(f"decoder.lora_rank={rank} must be at least 1")
    check_extra("lora", "decoder.tune=lora")
    from peft import LoraConfig, inject_adapter_in_model

    transposed = any(is_transposed_linear(module) for module in lm.modules())  # GPT-2's linear layers
    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # any number; typed as a whole one
        target_modules="all-linear",
        fan_in_fan_out=transposed,
        task_type="CAUSAL_LM",
    )
    inject_adapter_in_model(settings, lm)
