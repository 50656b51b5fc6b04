"""Hugging Face's causal language models: built untrained or loaded, then trained whole, through LoRA, or not at all."""

from __future__ import annotations

import inspect
from enum import Enum
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.pytorch_utils import Conv1D

from easycap.hub import hub, in_one_line

_DROPOUTS = ("embd_pdrop", "attn_pdrop", "resid_pdrop", "attention_dropout", "hidden_dropout")


class Tune(Enum):
    """What of a language model is trained: all of it, low-rank additions to it (LoRA), or nothing."""

    all = "all"
    lora = "lora"
    none = "none"


def architecture_of(source: str) -> dict[str, Any]:
    """Return what builds the language model `source` (a name on the hub or a folder) without its weights.

    Raises `ValueError` if its config.json cannot be had.
    """
    return _read_config(source).to_diff_dict()


def gpt2(sizes: dict[str, int | None], max_positions: int | None) -> dict[str, Any]:
    """Return the architecture of a GPT-2 of the given sizes; GPT-2 small's stand in for None."""
    wanted = {
        "n_embd": sizes["width"],
        "n_layer": sizes["num_layers"],
        "n_head": sizes["num_heads"],
        "n_positions": max_positions,
    }
    return {"model_type": "gpt2"} | {name: value for name, value in wanted.items() if value is not None}


def untrained(
    architecture: dict[str, Any], *, vocab_size: int, special: dict[str, int], dropout: float
) -> nn.Module:
    """Return a language model with random weights for `vocab_size` words; `special` are the ids of pad, bos and eos."""
    try:
        config = AutoConfig.for_model(**architecture)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"decoder.architecture must be the config of a language model of transformers ({in_one_line(error)}), "
            "e.g. {model_type: llama, hidden_size: 64, ...}"
        ) from error
    config.update({"vocab_size": vocab_size, **special})
    _prepare(config, dropout)
    return AutoModelForCausalLM.from_config(config, dtype=torch.get_default_dtype())


def load(source: str, *, dropout: float) -> nn.Module:
    """Return the pretrained language model `source` in full precision, whatever it was saved in."""
    config = _read_config(source)
    _prepare(config, dropout)
    try:
        with hub():
            lm, found = AutoModelForCausalLM.from_pretrained(
                source,
                config=config,
                dtype=torch.get_default_dtype(),
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _cannot_load(source, error) from error
    if found["missing_keys"]:  # transformers would go on with random ones
        missing = sorted(found["missing_keys"])
        raise ValueError(
            f"decoder.pretrained={source!r} lacks {len(missing)} tensors of its model, e.g. {missing[0]}: fetch its "
            "model.safetensors again"
        )
    return lm


def check_architecture(lm: nn.Module, architecture: dict[str, Any], source: str) -> None:
    """Raise `ValueError` unless `architecture`, which a checkpoint is built from, builds `lm`, loaded from `source`."""
    with torch.device("meta"):
        built = untrained(architecture, vocab_size=lm.config.vocab_size, special={}, dropout=0.0)
    shapes, wanted = ({name: t.shape for name, t in one.state_dict().items()} for one in (lm, built))
    if shapes != wanted:
        raise ValueError(
            f"decoder.architecture={architecture} is another model than decoder.pretrained={source!r}: set "
            "decoder.architecture=null, and it is read from there"
        )


def check_sizes(lm: nn.Module, sizes: dict[str, int | None]) -> None:
    """Raise `ValueError` naming the sizes (None: any) that are not the language model's own."""
    config = lm.config
    own = {
        "width": config.hidden_size,
        "num_layers": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
    }
    wrong = [f"decoder.{name}={value}" for name, value in own.items() if sizes[name] not in (None, value)]
    if wrong:
        raise ValueError(
            f"the language model of decoder.pretrained has other sizes than the config; set {' '.join(wrong)}, or null"
        )


def set_tuning(lm: nn.Module, tune: Tune, *, new_words: bool, rank: int, alpha: float) -> None:
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


def _add_lora(lm: nn.Module, rank: int, alpha: float) -> None:
    """Add W x + (alpha / rank) B A x (Hu et al. 2021, arXiv 2106.09685); B starts at zero."""
    if rank < 1:
        raise ValueError(f"decoder.lora_rank={rank} must be at least 1")
    try:
        from peft import LoraConfig, inject_adapter_in_model  # an extra: who uses it installs it
    except ImportError:
        raise ValueError("decoder.tune=lora needs the package peft: pip install 'easycap[lora]'") from None
    transposed = any(isinstance(module, Conv1D) for module in lm.modules())  # GPT-2's linear layers
    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules="all-linear",
        fan_in_fan_out=transposed,
        task_type="CAUSAL_LM",
    )
    inject_adapter_in_model(settings, lm)


def _read_config(source: str) -> PretrainedConfig:
    try:
        with hub():
            return AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise _cannot_load(source, error) from error


def _cannot_load(source: str, error: Exception) -> ValueError:
    return ValueError(
        f"decoder.pretrained={source!r} cannot be loaded ({in_one_line(error)}): pass a folder with config.json and "
        "model.safetensors (e.g. a download of huggingface.co/openai-community/gpt2), or train from scratch with "
        "decoder.pretrained=null"
    )


def _prepare(config: PretrainedConfig, dropout: float) -> None:
    """Check that the decoder can drive this kind of model, and set what is ours to choose."""
    family = config.model_type
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(
            f"a {family} model is no causal language model: take one as GPT-2, Llama or Qwen are"
        )
    accepted = inspect.signature(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].forward).parameters
    other_layers = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if not {"position_ids", "past_key_values", "inputs_embeds"} <= set(accepted) or other_layers:
        raise ValueError(
            f"a {family} model cannot be used: the decoder needs one that takes positions and keeps keys and values in "
            "every layer, as GPT-2, Llama or Qwen do"
        )
    for name in _DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, dropout)
    if getattr(config, "activation_function", None) == "gelu_new":
        config.activation_function = "gelu_pytorch_tanh"  # the same formula in one kernel
