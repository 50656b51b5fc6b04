"""The plain Transformer, captioning images: it attends over all memory slots at every word.

memory --[encoder layers]--> slots
                               ^ cross-attention
bos w1 w2 --[causal self-attention, cross-attention, feed-forward] x N--> w1 w2 w3
"""

from __future__ import annotations

import torch
from torch import nn

from easycap.models.decoders.checks import check_positive, check_transformer
from easycap.models.decoders.segments import SegmentEmbedding
from easycap.models.decoders.transformer_blocks import (
    Attention,
    EncoderLayer,
    KeysValues,
    Norm,
    Residual,
    TransformerState,
    WordEmbedding,
    draw_linear_layers,
    feed_forward,
    hiding,
    project_features,
    read_words,
)
from easycap.registry import register
from easycap.types import Memory, Output


@register("decoder", "transformer")
class Transformer(nn.Module):
    """Encoder and decoder layers of Vaswani et al. (1706.03762): memory (N,M,D) and words (B,T) -> logits.

    `norm` is post (the paper's, LN after each residual sum) or pre (LN before each sub-layer and once at the end of
    encoder and decoder). `num_encoder_layers` run over the memory once per image; 0 for none. With `raw_features` D is
    the encoder's C, and slots go through LN(drop(relu(W x))) first; else D is `width`. `segments` names those
    told apart by a learned vector. `tied` shares the word table with the output layer. Dropout is where the paper has
    it: on each sub-layer's output and on the embedded words. Attention is the last layer's, the mean over heads.
    Raises `ValueError` for sizes that do not fit.
    """

    prefix = False

    def __init__(
        self,
        *,
        width: int,
        num_layers: int,
        num_encoder_layers: int,
        num_heads: int,
        feed_forward_dim: int,
        max_words: int,
        dropout: float,
        norm: Norm,
        tied: bool,
        raw_features: bool,
        segments: tuple[str, ...],
        channels: int,
        vocab_size: int,
    ) -> None:
        super().__init__()
        check_positive("decoder", num_layers=num_layers, feed_forward_dim=feed_forward_dim)
        if num_encoder_layers < 0:
            raise ValueError(f"decoder.num_encoder_layers={num_encoder_layers} must be 0 (none) or more")
        check_transformer(width, num_heads, max_words, dropout)
        self.memory_dim, self.max_words = channels if raw_features else width, max_words
        sizes = (width, feed_forward_dim, dropout, norm)
        self.project = project_features(channels, width, dropout) if raw_features else nn.Identity()
        self.segments = SegmentEmbedding(segments, width)
        self.encoder = nn.ModuleList(
            EncoderLayer(Attention(width, num_heads), *sizes) for _ in range(num_encoder_layers)
        )
        self.layers = nn.ModuleList(DecoderLayer(num_heads, *sizes) for _ in range(num_layers))
        self.norm_memory, self.norm_words = (
            nn.LayerNorm(width) if norm is Norm.pre and layers else nn.Identity()
            for layers in (num_encoder_layers, num_layers)
        )
        self.output = None if tied else nn.Linear(width, vocab_size, bias=False)
        draw_linear_layers(self)
        self.words = WordEmbedding(vocab_size, width, max_words, dropout)

    @property
    def word_table(self) -> nn.Embedding:
        return self.words.table

    def start(self, memory: Memory) -> TransformerState:
        slots = self.segments(self.project(memory.tokens), memory.segments)
        bias = hiding(memory.mask[:, None, None])
        for layer in self.encoder:
            slots = layer(slots, bias)
        slots = self.norm_memory(slots)
        seen = [layer.cross_attention.read(slots) for layer in self.layers]
        return TransformerState.of(seen, bias, KeysValues(*(x[..., :0, :] for x in seen[0])))

    def forward(self, words: torch.Tensor, state: TransformerState) -> Output:
        hidden, attention, _ = read_words(self.layers, self.words(words, state.num_words), state)
        return Output(self._logits(hidden), attention)

    def step(self, words: torch.Tensor, state: TransformerState) -> tuple[torch.Tensor, TransformerState]:
        embedded = self.words(words.unsqueeze(1), state.num_words)
        hidden, _, state = read_words(self.layers, embedded, state)
        return self._logits(hidden[:, 0]), state

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        table = self.words.table if self.output is None else self.output
        return nn.functional.linear(self.norm_words(hidden), table.weight)


class DecoderLayer(nn.Module):
    """Causal attention over words, attention over the memory, feed-forward; see `read_words` for shapes."""

    def __init__(self, num_heads: int, width: int, hidden: int, dropout: float, norm: Norm) -> None:
        super().__init__()
        self.self_attention, self.cross_attention = (Attention(width, num_heads) for _ in range(2))
        self.feed_forward = feed_forward(width, hidden)
        self.around_self, self.around_cross, self.around_feed_forward = (
            Residual(width, dropout, norm) for _ in range(3)
        )

    def forward(
        self,
        x: torch.Tensor,
        past: KeysValues,
        memory: KeysValues,
        causal: torch.Tensor | None,
        bias: torch.Tensor,
    ) -> tuple[torch.Tensor, KeysValues, torch.Tensor]:
        read = self.around_self.before(x)
        past = past.append(self.self_attention.read(read))
        x = self.around_self.after(x, self.self_attention(read, past, causal)[0])
        seen, weights = self.cross_attention(self.around_cross.before(x), memory, bias)
        x = self.around_cross.after(x, seen)
        read = self.around_feed_forward.before(x)
        return self.around_feed_forward.after(x, self.feed_forward(read)), past, weights
