"""The adapter's part for attention: the implementation that transformers computes, or easycap's for packed rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from easycap.utils.native_parts import Native
from easycap.utils.packed_attention import (
    PACKED,
    PackedRows,
    packed_attention,
    packed_rows,
    unpacking_into,
)
from easycap.utils.transformers_adapter import LanguageModel

# Families with plain softmax attention over scaled dot products, tested in tests/parity.
_PACKED_FAMILIES = ("gpt2", "gpt_neox", "llama", "qwen2", "qwen3", "smollm3")


def can_pack(lm: LanguageModel) -> bool:
    """Whether `read_packed` can replace `lm`: for supported families with eager attention.

    That is what `pick_attention` chooses on a CPU, and only there: with fewer operations, a CPU saves time.
    """
    config = lm.config
    upcast = getattr(config, "reorder_and_upcast_attn", False)
    eager = config._attn_implementation == "eager"
    windows = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    plain = config.model_type in _PACKED_FAMILIES and not upcast and not windows
    return plain and eager and not torch.compiler.is_compiling()


def _no_mask(*ignored: Any, **also: Any) -> None:
    """No mask: what each word attends to is in the `PackedRows`."""


def _register_packed_attention() -> None:
    import transformers

    transformers.AttentionInterface.register(PACKED, packed_attention)
    transformers.AttentionMaskInterface.register(PACKED, _no_mask)


def pick_attention(lm: LanguageModel, device: str) -> None:
    """Choose the attention implementation of `lm` that is fastest on a device type (cpu, cuda, ...)."""
    # On a CPU, torch's fused attention has a backward pass that costs twice the plain matrix products' at the
    # lengths of captions (experiments/speed). It knows no limit on attention's logits (Gemma 2), which
    # transformers before 5.24 dropped without a word.
    limited = getattr(lm.config, "attn_logit_softcapping", None) is not None
    fused = device != "cpu" and lm._supports_sdpa and not limited
    lm.set_attn_implementation("sdpa" if fused else "eager")
    if not isinstance(lm, Native):
        _register_packed_attention()


def read_packed(
    lm: LanguageModel,
    memory: torch.Tensor,
    mask: torch.Tensor,
    *,
    embedded: torch.Tensor,
    real: torch.Tensor,
    rows: torch.Tensor,
) -> torch.Tensor:
    """Return logits (P,V) of the P words where `real` (B,T) is True, embedded as (P,D), read after memory (N,M,D).

    mask (N,M) is False for what is not looked at in the memory, rows (B,) names each caption's. Masked positions and
    padding, at the ends of rows, are not computed, and weights are used once: linear layers see all positions packed
    into one row, and attention unpacks them into their own rows.
    """
    packed = packed_rows(mask, real, rows)
    inputs = {
        "inputs_embeds": torch.cat([memory[mask], embedded.to(memory.dtype)])[None],
        "position_ids": packed.positions[None],
    }
    with _attention_to(packed, lm.config):
        return lm(**inputs, use_cache=False, logits_to_keep=len(embedded)).logits[0]


@contextmanager
def _attention_to(rows: PackedRows, config: Any) -> Iterator[None]:
    before = config._attn_implementation
    config._attn_implementation = PACKED
    try:
        with unpacking_into(rows):
            yield
    finally:
        config._attn_implementation = before
