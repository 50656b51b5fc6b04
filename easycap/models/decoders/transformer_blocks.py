"""What the Transformer decoders are made of (Vaswani et al. 2017, arXiv 1706.03762).

Shape legend: B rows, T words, M memory positions, L keys, D width, h heads, d = D / h, V vocabulary. A bias is added to
attention scores before the softmax: 0 for what may be seen, -inf for what may not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import torch
from torch import nn


class Norm(Enum):
    """Where layer normalisation stands: before each sub-layer, or after its sum with the residual."""

    pre = "pre"
    post = "post"


class LayerNormKind(Enum):
    """torch: torch's own. unbiased: `UnbiasedLayerNorm`."""

    torch = "torch"
    unbiased = "unbiased"


class UnbiasedLayerNorm(nn.Module):
    """weight * (x - mean) / (std + eps) + bias over the last dimension, std with n - 1 and eps outside of the root: as
    ruotianluo's repository has it (captioning/models/TransformerModel.py:76-87 of ImageCaptioning.pytorch at 4c48a33).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.eps = 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        std, mean = torch.std_mean(x, -1, keepdim=True)
        return self.weight * (x - mean) / (std + self.eps) + self.bias


def new_norm(width: int, kind: LayerNormKind) -> nn.Module:
    """Return a LayerNorm of this width and kind."""
    return UnbiasedLayerNorm(width) if kind is LayerNormKind.unbiased else nn.LayerNorm(width)


class Blocks(NamedTuple):
    """Settings shared by the layers of a Transformer: width D and the feed-forward width, dropout of sub-layers and
    inside the feed-forward block, and layer normalisation.
    """

    width: int
    hidden: int
    dropout: float
    dropout_inside: float
    norm: Norm
    kind: LayerNormKind

    def residual(self) -> Residual:
        return Residual(self.width, self.dropout, self.norm, self.kind)

    def feed_forward(self) -> nn.Sequential:
        """Return the position-wise block (1706.03762, equation 2)."""
        # The dropout shares an index with its neighbour, as the indices are part of stored weights' names.
        relu = nn.Sequential(nn.ReLU(), nn.Dropout(self.dropout_inside))
        return nn.Sequential(nn.Linear(self.width, self.hidden), relu, nn.Linear(self.hidden, self.width))


class KeysValues(NamedTuple):
    """What attention looks at: keys and values (B,...,h,L,d)."""

    keys: torch.Tensor
    values: torch.Tensor

    def append(self, other: KeysValues) -> KeysValues:
        return KeysValues(torch.cat([self.keys, other.keys], -2), torch.cat([self.values, other.values], -2))

    def select(self, rows: torch.Tensor) -> KeysValues:
        return KeysValues(self.keys.index_select(0, rows), self.values.index_select(0, rows))


def hiding(mask: torch.Tensor) -> torch.Tensor:
    """mask, True for what may be seen -> the bias of the same shape."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -math.inf)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (1706.03762, section 3.2), keys and values computed apart.

    Plain matrix products: at the lengths of captions they train faster on a CPU than torch's fused kernel, and the
    weights are wanted.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (width // num_heads) ** -0.5
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def read(self, x: torch.Tensor) -> KeysValues:
        """x (B,...,L,D) -> its keys and values."""
        return KeysValues(self.split(self.key(x)), self.split(self.value(x)))

    def forward(
        self, x: torch.Tensor, seen: KeysValues, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x (B,...,T,D) -> what it sees (B,...,T,D) and the weights (B,...,h,T,L)."""
        scores = (self.split(self.query(x)) * self.scale) @ seen.keys.mT
        weights = (scores if bias is None else scores + bias).softmax(-1)
        return self.out((weights @ seen.values).transpose(-3, -2).flatten(-2)), weights

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """(...,L,D) -> (...,h,L,d)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)


class Residual(nn.Module):
    """Dropout, sum and layer normalisation around a sub-layer: LN(x + f(x)), or x + f(LN(x)) where `norm` is pre."""

    def __init__(self, width: int, dropout: float, norm: Norm, kind: LayerNormKind) -> None:
        super().__init__()
        self.norm, self.dropout = new_norm(width, kind), nn.Dropout(dropout)
        self.first = norm is Norm.pre

    def before(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the sub-layer reads."""
        return self.norm(x) if self.first else x

    def after(self, x: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
        """Return x with the sub-layer's output added."""
        x = x + self.dropout(update)
        return x if self.first else self.norm(x)


class EncoderLayer(nn.Module):
    """`attention` among the memory positions, then a feed-forward block: (B,M,D) -> (B,M,D)."""

    def __init__(self, attention: Attention, blocks: Blocks) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = blocks.feed_forward()
        self.around_attention, self.around_feed_forward = (blocks.residual() for _ in range(2))

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        read = self.around_attention.before(x)
        x = self.around_attention.after(x, self.attention(read, self.attention.read(read), bias)[0])
        read = self.around_feed_forward.before(x)
        return self.around_feed_forward.after(x, self.feed_forward(read))


@dataclass(frozen=True)
class TransformerState:
    """The memory and the words so far as each layer's attention sees them, and the memory's bias (B,...,1,M)."""

    memory: tuple[KeysValues, ...]
    bias: torch.Tensor
    words: tuple[KeysValues, ...]

    @staticmethod
    def of(memory: Iterable[KeysValues], bias: torch.Tensor, words: KeysValues) -> TransformerState:
        """Return the state before the first word; `words` are keys and values of none."""
        memory = tuple(memory)
        return TransformerState(memory, bias, (words,) * len(memory))

    @property
    def num_words(self) -> int:
        return self.words[0].keys.shape[-2]

    def select(self, rows: torch.Tensor) -> TransformerState:
        return TransformerState(
            tuple(seen.select(rows) for seen in self.memory),
            self.bias.index_select(0, rows),
            tuple(seen.select(rows) for seen in self.words),
        )


def read_words(
    layers: nn.ModuleList, x: torch.Tensor, state: TransformerState
) -> tuple[torch.Tensor, torch.Tensor, TransformerState]:
    """Run words that follow those of the state, x (B,T,D), through decoder layers.

    Returns the last layer's output (B,T,D), where its cross-attention looked (B,T,M; the mean over heads and
    whatever other dimensions it has), and the next state. A layer maps (x, words so far, memory, causal bias, memory's
    bias) to (x, words with these, attention weights (B,...,T,M)).
    """
    causal = causal_bias(x.shape[1], state.num_words, x.device)
    words = []
    for layer, past, memory in zip(layers, state.words, state.memory, strict=True):
        x, past, weights = layer(x, past, memory, causal, state.bias)
        words.append(past)
    attention = weights.flatten(1, -3).mean(1)
    return x, attention, TransformerState(state.memory, state.bias, tuple(words))


def causal_bias(num_words: int, num_before: int, device: torch.device) -> torch.Tensor | None:
    """Return the bias (T,L) under which a word sees those before it and itself; None for a single word."""
    if num_words == 1:
        return None
    visible = torch.ones(num_words, num_before + num_words, dtype=torch.bool, device=device)
    return hiding(visible.tril(num_before))


class WordEmbedding(nn.Module):
    """Words (B,T) -> E[word] * sqrt(D) + position (1706.03762, sections 3.4 and 3.5): (B,T,D).

    The position table is a buffer: nothing that draws or trains parameters can reach it. With `stored` it is among the
    weights, for those that come with a table of their own.
    """

    positions: torch.Tensor

    def __init__(
        self, vocab_size: int, width: int, max_length: int, dropout: float, *, stored: bool = False
    ) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, width)
        nn.init.normal_(self.table.weight, std=width**-0.5)
        self.register_buffer("positions", sinusoids(max_length, width), persistent=stored)
        self.scale, self.dropout = width**0.5, nn.Dropout(dropout)

    def forward(self, words: torch.Tensor, num_before: int) -> torch.Tensor:
        positions = self.positions[num_before : num_before + words.shape[1]]
        return self.dropout(self.table(words) * self.scale + positions)


def sinusoids(count: int, width: int) -> torch.Tensor:
    """Return the position table (count,D) of 1706.03762, section 3.5: sines in even columns, cosines in odd ones."""
    wavelengths = 10_000 ** (torch.arange(0, width, 2) / width)
    angles = torch.arange(count).unsqueeze(1) / wavelengths
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def project_features(channels: int, width: int, dropout: float, *, norm: bool = True) -> nn.Sequential:
    """Return what turns an encoder's features (N,M,C) into (N,M,D): LN(drop(relu(W x))), LN only with `norm`."""
    last = nn.LayerNorm(width) if norm else nn.Identity()
    return nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Dropout(dropout), last)


def draw_linear_layers(module: nn.Module) -> None:
    """Draw the weights of all linear layers from Xavier's uniform distribution, biases 0; nothing else is touched."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
