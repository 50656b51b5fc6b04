"""Parts of our own language model that `transformers_adapter` knows, so that it treats it as those of transformers."""

from __future__ import annotations

import sys
from typing import NamedTuple

import torch
from torch import nn


class Native:
    """Base class of a model, of its layers and of its config that are ours and need nothing of transformers."""


class KeyValueCache:
    """The keys and values of our own GPT-2's layers; used like a cache of transformers."""

    def __init__(self) -> None:
        self.layers: list[LayerKeyValues] = []

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values (B,heads,T,d) to those of a layer, and return all of its (B,heads,L+T,d)."""
        if layer == len(self.layers):
            self.layers.append(LayerKeyValues(keys, values))
        else:
            before = self.layers[layer]
            self.layers[layer] = LayerKeyValues(
                torch.cat([before.keys, keys], dim=2), torch.cat([before.values, values], dim=2)
            )
        return self.layers[layer]


class LayerKeyValues(NamedTuple):
    """(B,heads,L,d) both."""

    keys: torch.Tensor
    values: torch.Tensor


class TransposedLinear(nn.Module):
    """A linear layer with a weight (inputs, outputs), as GPT-2 was published; (...,inputs) -> (...,outputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x @ weight + bias."""
        rows = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return rows.view(*x.shape[:-1], rows.shape[-1])


def is_transposed_linear(module: nn.Module) -> bool:
    """Whether this is a linear layer with a weight of shape (inputs, outputs), as in GPT-2."""
    if isinstance(module, TransposedLinear):
        return True
    loaded = sys.modules.get("transformers.pytorch_utils")  # else there can be no such layer
    return loaded is not None and isinstance(module, loaded.Conv1D)
