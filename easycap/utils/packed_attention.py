"""Attention for memories and captions packed into one row without padding: linear layers see one row, attention
separate ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

# Finite also in bfloat16, to which autocast may cast it.
_UNSEEN = torch.finfo(torch.bfloat16).min


class Rows:
    """B rows of T positions, of which those where real (B,T) is True, P in all, are packed.

    bias (B,1,T,L) is 0 where a position sees one of L others, seen (B,T,L), and else so low that it has no weight.
    """

    def __init__(self, real: torch.Tensor, seen: torch.Tensor) -> None:
        self.real, self.full = real, bool(real.all())
        self.places = real.flatten().nonzero().squeeze(1)
        self.bias = torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, _UNSEEN).unsqueeze(1)

    def unpack(self, x: torch.Tensor) -> torch.Tensor:
        """x (heads,P,d) -> (B,heads,T,d), 0 where nothing is packed."""
        x = x.transpose(0, 1)
        if not self.full:
            x = x.new_zeros(self.real.numel(), *x.shape[1:]).index_copy(0, self.places, x)
        return x.view(*self.real.shape, *x.shape[1:]).transpose(1, 2)

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        """x (B,heads,T,d) -> (P,heads,d)."""
        flat = x.transpose(1, 2).flatten(0, 1)
        return flat if self.full else flat[self.places]


@dataclass(frozen=True)
class PackedRows:
    """What is packed into one row: the positions of N memories, then the words of B captions.

    A memory sees itself, a caption its own words and the memory that rows (B,) names. positions (P,) of all of them
    begin with 0 in each memory and continue in its captions.
    """

    memory: Rows
    words: Rows
    rows: torch.Tensor
    positions: torch.Tensor


def packed_rows(mask: torch.Tensor, real: torch.Tensor, rows: torch.Tensor) -> PackedRows:
    """Return the packed rows of N memories, valid where mask (N,M) is True, and of captions of real (B,T) words."""
    of_memory, of_words = (
        torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril() for x in (mask, real)
    )
    before = mask[rows].unsqueeze(1).expand(-1, real.shape[1], -1)
    seen = torch.cat([before, of_words.expand(len(real), -1, -1)], dim=2)
    after = mask.sum(1)[rows].unsqueeze(1) + torch.arange(real.shape[1], device=real.device)
    positions = torch.cat([(mask.cumsum(1) - 1)[mask], after[real]])
    return PackedRows(Rows(mask, mask.unsqueeze(1) & of_memory), Rows(real, seen), rows, positions)


PACKED = "easycap_packed"  # the name of this implementation of attention
_rows: ContextVar[PackedRows] = ContextVar("rows")


@contextmanager
def unpacking_into(rows: PackedRows) -> Iterator[None]:
    """Inside this context, `packed_attention` unpacks into these rows."""
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
    sizes = [len(packed.memory.places), len(packed.words.places)]
    of_memory, of_words = zip(*(x[0].split(sizes, dim=1) for x in (query, key, value)), strict=True)
    dropout = dropout if module.training else 0.0
    key, value = (packed.memory.unpack(x) for x in of_memory[1:])
    found = [_attend(packed.memory.unpack(of_memory[0]), key, value, packed.memory.bias, scaling, dropout)]
    key, value = (
        torch.cat([before.index_select(0, packed.rows), packed.words.unpack(x)], dim=2)
        for before, x in zip((key, value), of_words[1:], strict=True)
    )
    found.append(_attend(packed.words.unpack(of_words[0]), key, value, packed.words.bias, scaling, dropout))
    packs = (packed.memory.pack, packed.words.pack)
    found = [pack(x) for pack, x in zip(packs, found, strict=True)]
    return torch.cat(found)[None], None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor,
    scaling: float | None,
    dropout: float,
) -> torch.Tensor:
    """query (B,heads,T,d), key and value (B,fewer or as many heads,L,d), bias (B,1,T,L) -> (B,heads,T,d)."""
    rows, heads, length, dim = query.shape
    key, value = (
        (x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)).flatten(0, 1)
        for x in (key, value)
    )
    weights = torch.baddbmm(
        bias.to(query.dtype).expand(-1, heads, -1, -1).flatten(0, 1),
        query.flatten(0, 1),
        key.mT,
        alpha=dim**-0.5 if scaling is None else scaling,
    )
    weights = nn.functional.dropout(weights.softmax(-1).to(value.dtype), dropout)
    return torch.bmm(weights, value).view(rows, heads, length, -1)
