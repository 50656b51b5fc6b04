"""Transformer equations, written a second time: one row, one query, one head after another, loops for sums."""

from __future__ import annotations

import math

import torch
from torch import nn


def attend(layer: nn.Module, query: torch.Tensor, seen: list[torch.Tensor], extra=()) -> torch.Tensor:
    """softmax(q K^T / sqrt(d)) V of 1706.03762, equation 1, head by head: query (D,), seen L times (D,) -> (D,).

    `extra` are pairs of a key and a value (D,) that go through no projection.
    """
    heads, width = layer.num_heads, len(query)
    d = width // heads
    q = layer.query.weight @ query + layer.query.bias
    keys = [layer.key.weight @ x + layer.key.bias for x in seen] + [key for key, _ in extra]
    values = [layer.value.weight @ x + layer.value.bias for x in seen] + [value for _, value in extra]
    outputs = []
    for head in range(heads):
        part = slice(head * d, (head + 1) * d)
        scores = [float(q[part] @ key[part]) / math.sqrt(d) for key in keys]
        total = sum(math.exp(score) for score in scores)
        outputs.append(
            sum(math.exp(score) / total * value[part] for score, value in zip(scores, values, strict=True))
        )
    return layer.out.weight @ torch.cat(outputs) + layer.out.bias


def normalise(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """torch's layer normalisation, or ruotianluo's (captioning/models/TransformerModel.py:84-87 at 4c48a33)."""
    if not isinstance(layer, nn.LayerNorm):
        mean = sum(x) / len(x)
        std = (sum((x - mean) ** 2) / (len(x) - 1)).sqrt()
        return layer.weight * (x - mean) / (std + 1e-6) + layer.bias
    return (x - x.mean()) / (x.var(unbiased=False) + layer.eps).sqrt() * layer.weight + layer.bias


def feed_forward(layers: nn.Sequential, x: torch.Tensor, dropped: float = 1.0) -> torch.Tensor:
    """`dropped` is what a dropout inside multiplies by."""
    hidden = (layers[0].weight @ x + layers[0].bias).clamp(min=0) * dropped
    return layers[2].weight @ hidden + layers[2].bias


def project(layers: nn.Sequential, x: torch.Tensor, dropped: float = 1.0) -> torch.Tensor:
    return normalise(layers[3], (layers[0].weight @ x + layers[0].bias).clamp(min=0) * dropped)


def position(index: int, width: int) -> torch.Tensor:
    """1706.03762, section 3.5."""
    entries = []
    for i in range(width // 2):
        angle = index / 10_000 ** (2 * i / width)
        entries += [math.sin(angle), math.cos(angle)]
    return torch.tensor(entries)


def embed(words: nn.Module, word: int, index: int) -> torch.Tensor:
    width = words.table.weight.shape[1]
    return words.table.weight[word] * math.sqrt(width) + position(index, width)
