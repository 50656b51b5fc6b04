"""Attention for captions packed into one row without padding: linear layers see one row, attention separate ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class PackedRows:
    """What B captions packed into one row of P words attend to: `layers`, the keys and values of L positions before
    them; `places` (P,), their indices in the flattened (B,T); bias (B,1,T,L+T), added to the attention logits.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    places: torch.Tensor
    bias: torch.Tensor


PACKED = "easycap_packed"  # the name of this implementation of attention
_rows: ContextVar[PackedRows] = ContextVar("rows")


@contextmanager
def rows_are(rows: PackedRows) -> Iterator[None]:
    """Set the rows into which `packed_attention` unpacks words, inside this context."""
    token = _rows.set(rows)
    try:
        yield
    finally:
        _rows.reset(token)


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,  # noqa: ARG001  transformers passes it
    scaling: float | None = None,
    dropout: float = 0.0,
    **ignored: Any,  # noqa: ARG001
) -> tuple[torch.Tensor, None]:
    """query (1,heads,P,d), key and value (1,fewer or as many heads,P,d) -> (1,P,heads,d)."""
    packed = _rows.get()
    rows, _, length, _ = packed.bias.shape
    heads, dim = query.shape[1], query.shape[3]

    def unpack(x: torch.Tensor) -> torch.Tensor:  # -> (B,heads,T,d)
        x = x[0].transpose(0, 1)
        flat = x.new_zeros(rows * length, *x.shape[1:]).index_copy(0, packed.places, x)
        return flat.view(rows, length, *x.shape[1:]).transpose(1, 2)

    def all_heads(before: torch.Tensor, x: torch.Tensor) -> torch.Tensor:  # -> (B*heads,L+T,d)
        x = torch.cat([before.to(x.dtype), unpack(x)], dim=2)
        if x.shape[1] < heads:
            x = x.repeat_interleave(heads // x.shape[1], dim=1)
        return x.flatten(0, 1)

    keys, values = packed.layers[int(module.layer_idx)]  # type: ignore[arg-type]  # an int of each layer of transformers
    weights = torch.baddbmm(
        packed.bias.to(query.dtype).expand(-1, heads, -1, -1).flatten(0, 1),
        unpack(query).flatten(0, 1),
        all_heads(keys, key).mT,
        alpha=dim**-0.5 if scaling is None else scaling,
    )
    weights = nn.functional.dropout(weights.softmax(-1).to(value.dtype), dropout, module.training)
    found = torch.bmm(weights, all_heads(values, value)).view(rows, heads, length, -1)
    return found.transpose(1, 2).flatten(0, 1)[packed.places][None], None


# Families with plain softmax attention over scaled dot products, tested in tests/parity.
_PACKED_FAMILIES = ("gpt2", "gpt_neox", "llama", "qwen2", "qwen3", "smollm3")


def can_pack(lm: Any) -> bool:
    """Whether `read_packed` can replace `lm`: for supported families, on a CPU, where fewer operations save time."""
    config = lm.config
    upcast = getattr(config, "reorder_and_upcast_attn", False)
    eager = config._attn_implementation == "eager"
    windows = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    plain = config.model_type in _PACKED_FAMILIES and not upcast and not windows
    return plain and eager and not torch.compiler.is_compiling()
