"""Meshed-Memory Transformer: every encoder level is read at every decoder layer, through gates.

memory --[encoder 1]--> level 1 --[encoder 2]--> level 2 --[encoder 3]--> level 3      with learned memory vectors
                           |                        |                        |
bos w1 w2 --[self-attention, sum of gate_i * attention to level i, feed-forward] x N--> w1 w2 w3
"""

from __future__ import annotations

from enum import Enum

import torch
from torch import nn

from easycap.errors import UserError
from easycap.models.checks import check_positive, check_transformer
from easycap.models.decoders.segments import SegmentEmbedding
from easycap.models.decoders.transformer_blocks import (
    Attention,
    Blocks,
    EncoderLayer,
    KeysValues,
    LayerNormKind,
    Norm,
    TransformerState,
    WordEmbedding,
    draw_linear_layers,
    hiding,
    project_features,
    read_words,
)
from easycap.registry import register
from easycap.types import Memory, Output


class Mesh(Enum):
    """Where the residual sum of the meshed attention stands; see `MeshedMemory`."""

    paper = "paper"
    release = "release"


@register("decoder", "m2")
class MeshedMemory(nn.Module):
    """Cornia et al. (CVPR 2020, arXiv 1912.08226): memory (N,M,D) and words (B,T) -> logits.

    Encoder: attention whose keys and values are extended by `num_memory_vectors` learned ones per layer (equation 3),
    post-norm; the decoder reads all its levels. Decoder layer: causal self-attention, then cross-attention C, one
    module for all levels X_i, gated per level i and element (equations 5 to 7):

        s = AddNorm(self-attention)    c_i = C(X_i, s)    a_i = sigmoid(W_i [s, c_i] + b_i)
        mesh=paper:   z = LN(s + sum_i a_i * c_i)
        mesh=release: c_i = LN(s + C(X_i, s)),  z = sum_i a_i * c_i / sqrt(levels)

    With `raw_features` D is the encoder's C, and its features go through LN(drop(relu(W x))) first; else D is `width`.
    The memory vectors are stored as the release stores them, keys divided by sqrt(d), values by sqrt(m): only a scale
    of their learning rate. Words are embedded as in `transformer`; the output layer is not tied. Attention is the last
    layer's, the mean over heads and levels. The release has dropout inside the feed-forward blocks
    (`dropout_feed_forward`; models/transformer/utils.py:47-50) and none on embedded words (`dropout_words`;
    models/transformer/decoders.py:84-89), both at 239100b. Raises `UserError` for sizes that do not fit.

    What the released code (aimagelab/meshed-memory-transformer) does otherwise, and this does not:
    1. Its padding mask asks whether a region's LN output sums to zero. Bias and LN make a zero row non-zero, so nothing
       is ever masked, and padding changes the captions. Masks here are the memory's own.
    2. Its initialiser runs over every parameter with two dimensions and more, and so draws the frozen position table
       and the memory vectors again. Here positions are a buffer, and the memory vectors keep their own distribution;
       with `stored_positions` the buffer is among the weights, as released weights bring their own.
    3. Word embeddings are not scaled by sqrt(D).
    4. Outside the model: CIDEr's document frequencies count captions instead of images, doubled words are merged before
       scoring, missing features become random numbers, the vocabulary is of training and validation captions.
    """

    prefix, skips_padding = False, True

    def __init__(
        self,
        channels: int,
        vocab_size: int,
        *,
        width: int,
        num_layers: int,
        num_levels: int,
        num_heads: int,
        feed_forward_dim: int,
        num_memory_vectors: int,
        max_length: int,
        dropout: float,
        dropout_words: bool,
        dropout_feed_forward: bool,
        mesh: Mesh,
        raw_features: bool,
        segments: tuple[str, ...],
        stored_positions: bool,
    ) -> None:
        super().__init__()
        check_positive(
            "decoder", num_layers=num_layers, num_levels=num_levels, feed_forward_dim=feed_forward_dim
        )
        if num_memory_vectors < 0:
            raise UserError(f"decoder.num_memory_vectors={num_memory_vectors} must be 0 (none) or more")
        check_transformer(width, num_heads, max_length, dropout)
        self.memory_dim, self.max_length = channels if raw_features else width, max_length
        inside = dropout if dropout_feed_forward else 0.0
        blocks = Blocks(width, feed_forward_dim, dropout, inside, Norm.post, LayerNormKind.torch)
        self.project = project_features(channels, width, dropout) if raw_features else nn.Identity()
        self.segments = SegmentEmbedding(segments, width)
        self.encoder = nn.ModuleList(
            EncoderLayer(MemoryAttention(width, num_heads, num_memory_vectors), blocks)
            for _ in range(num_levels)
        )
        self.layers = nn.ModuleList(
            MeshedLayer(num_heads, num_levels, blocks, mesh) for _ in range(num_layers)
        )
        self.output = nn.Linear(width, vocab_size, bias=False)
        draw_linear_layers(self)
        self.words = WordEmbedding(
            vocab_size,
            width,
            max_length,
            dropout if dropout_words else 0.0,
            stored=stored_positions,
        )

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.words.table

    def start(self, memory: Memory) -> TransformerState:
        encoded = self.segments(self.project(memory.tokens), memory.segments)
        bias = hiding(memory.mask[:, None, None])
        levels = []
        for layer in self.encoder:
            encoded = layer(encoded, bias)
            levels.append(encoded)
        stacked = torch.stack(levels, 1)  # (N,levels,M,D)
        seen = [
            layer.cross_attention.read(stacked) for layer in self.layers if isinstance(layer, MeshedLayer)
        ]
        return TransformerState.of(seen, bias.unsqueeze(1), KeysValues(*(x[:, 0, :, :0] for x in seen[0])))

    def forward(
        self, words: torch.Tensor, state: TransformerState, real: torch.Tensor | None = None
    ) -> Output:
        hidden, attention, _ = read_words(self.layers, self.words(words, state.num_words), state)
        return Output(self.output(hidden if real is None else hidden[real]), attention)

    def step(self, words: torch.Tensor, state: TransformerState) -> tuple[torch.Tensor, TransformerState]:
        embedded = self.words(words.unsqueeze(1), state.num_words)
        hidden, _, state = read_words(self.layers, embedded, state)
        return self.output(hidden[:, 0]), state


class MemoryAttention(Attention):
    """Attention that also sees m learned keys and values, whatever the input (1912.08226, equation 3)."""

    def __init__(self, width: int, num_heads: int, num_vectors: int) -> None:
        super().__init__(width, num_heads)
        head_dim = width // num_heads
        self.num_vectors = num_vectors
        self.memory_keys = nn.Parameter(torch.randn(num_vectors, width) / head_dim) if num_vectors else None
        self.memory_values = (
            nn.Parameter(torch.randn(num_vectors, width) / num_vectors) if num_vectors else None
        )
        self.key_scale, self.value_scale = head_dim**0.5, num_vectors**0.5

    def read(self, x: torch.Tensor) -> KeysValues:
        encoded = super().read(x)
        if self.memory_keys is None or self.memory_values is None:
            return encoded
        vectors = (self.memory_keys * self.key_scale, self.memory_values * self.value_scale)
        return encoded.append(KeysValues(*(self.split(v).expand(x.shape[0], -1, -1, -1) for v in vectors)))

    def forward(
        self, x: torch.Tensor, seen: KeysValues, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if bias is not None:
            bias = nn.functional.pad(bias, (0, self.num_vectors))
        return super().forward(x, seen, bias)


class MeshedLayer(nn.Module):
    """Causal attention over words, gated attention over all levels, feed-forward; see `read_words` for shapes.

    Keys and values of the memory have a dimension of levels after that of rows.
    """

    def __init__(self, num_heads: int, num_levels: int, blocks: Blocks, mesh: Mesh) -> None:
        super().__init__()
        self.mesh, width = mesh, blocks.width
        self.self_attention, self.cross_attention = (Attention(width, num_heads) for _ in range(2))
        self.gates = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(num_levels))
        self.feed_forward = blocks.feed_forward()
        self.around_self, self.around_cross, self.around_feed_forward = (blocks.residual() for _ in range(3))

    def forward(
        self,
        x: torch.Tensor,
        past: KeysValues,
        memory: KeysValues,
        causal: torch.Tensor | None,
        bias: torch.Tensor,
    ) -> tuple[torch.Tensor, KeysValues, torch.Tensor]:
        past = past.append(self.self_attention.read(x))
        x = self.around_self.after(x, self.self_attention(x, past, causal)[0])
        seen, weights = self.cross_attention(x.unsqueeze(1), memory, bias)  # seen (B,levels,T,D)
        if self.mesh is Mesh.paper:
            x = self.around_cross.after(x, self.gated_sum(x, seen))
        else:
            seen = self.around_cross.after(x.unsqueeze(1), seen)
            x = self.gated_sum(x, seen) / len(self.gates) ** 0.5
        return self.around_feed_forward.after(x, self.feed_forward(x)), past, weights

    def gated_sum(self, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """x (B,T,D) and what was seen at each level (B,levels,T,D) -> (B,T,D)."""
        levels = zip(self.gates, seen.unbind(1), strict=True)
        parts = [gate(torch.cat([x, level], -1)).sigmoid() * level for gate, level in levels]
        return sum(parts[1:], parts[0])
