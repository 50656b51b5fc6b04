"""The plain Transformer, captioning images: it attends over all memory positions at every word.

memory --[encoder layers]--> encoded
                                 ^ cross-attention
bos w1 w2 --[causal self-attention, cross-attention, feed-forward] x N--> w1 w2 w3
"""

from __future__ import annotations

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
    new_norm,
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
    the encoder's C, and its features go through LN(drop(relu(W x))) first; else D is `width`. `segments` names those
    distinguished by a learned vector. `tied` shares the word table with the output layer. Dropout is where the paper
    has
    it: on each sub-layer's output and, with `dropout_words`, on the embedded words; with `dropout_feed_forward` also
    inside the feed-forward blocks, as in Meshed-Memory's and ruotianluo's code. `layer_norm`: see `LayerNormKind`.
    Without `project_norm` projected features have no LN; with `output_bias` the untied output layer has a bias: both
    as in ruotianluo's code.
    Attention is the last layer's, the mean over heads. Raises `UserError` for sizes that do not fit.
    """

    prefix, skips_padding = False, True

    def __init__(
        self,
        channels: int,
        vocab_size: int,
        *,
        width: int,
        num_layers: int,
        num_encoder_layers: int,
        num_heads: int,
        feed_forward_dim: int,
        max_length: int,
        dropout: float,
        dropout_words: bool,
        dropout_feed_forward: bool,
        norm: Norm,
        layer_norm: LayerNormKind,
        tied: bool,
        raw_features: bool,
        segments: tuple[str, ...],
        project_norm: bool,
        output_bias: bool,
    ) -> None:
        super().__init__()
        check_positive("decoder", num_layers=num_layers, feed_forward_dim=feed_forward_dim)
        if num_encoder_layers < 0:
            raise UserError(f"decoder.num_encoder_layers={num_encoder_layers} must be 0 (none) or more")
        check_transformer(width, num_heads, max_length, dropout)
        if output_bias and tied:
            raise UserError(
                "decoder.output_bias=true is for an output layer of its own: set decoder.tied=false"
            )
        self.memory_dim, self.max_length = channels if raw_features else width, max_length
        inside = dropout if dropout_feed_forward else 0.0
        blocks = Blocks(width, feed_forward_dim, dropout, inside, norm, layer_norm)
        self.project: nn.Module = nn.Identity()
        if raw_features:
            self.project = project_features(channels, width, dropout, norm=project_norm)
        self.segments = SegmentEmbedding(segments, width)
        self.encoder = nn.ModuleList(
            EncoderLayer(Attention(width, num_heads), blocks) for _ in range(num_encoder_layers)
        )
        self.layers = nn.ModuleList(DecoderLayer(num_heads, blocks) for _ in range(num_layers))
        self.norm_memory, self.norm_words = (
            new_norm(width, layer_norm) if norm is Norm.pre and layers else nn.Identity()
            for layers in (num_encoder_layers, num_layers)
        )
        self.output = None if tied else nn.Linear(width, vocab_size, bias=output_bias)
        draw_linear_layers(self)
        self.words = WordEmbedding(vocab_size, width, max_length, dropout if dropout_words else 0.0)

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.words.table

    def start(self, memory: Memory) -> TransformerState:
        encoded = self.segments(self.project(memory.tokens), memory.segments)
        bias = hiding(memory.mask[:, None, None])
        for layer in self.encoder:
            encoded = layer(encoded, bias)
        encoded = self.norm_memory(encoded)
        seen = [layer.cross_attention.read(encoded) for layer in self._decoder_layers()]
        return TransformerState.of(seen, bias, KeysValues(*(x[..., :0, :] for x in seen[0])))

    def forward(
        self, words: torch.Tensor, state: TransformerState, real: torch.Tensor | None = None
    ) -> Output:
        hidden, attention, _ = read_words(self.layers, self.words(words, state.num_words), state)
        return Output(self._logits(hidden if real is None else hidden[real]), attention)

    def step(self, words: torch.Tensor, state: TransformerState) -> tuple[torch.Tensor, TransformerState]:
        embedded = self.words(words.unsqueeze(1), state.num_words)
        hidden, _, state = read_words(self.layers, embedded, state)
        return self._logits(hidden[:, 0]), state

    def _decoder_layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = self.norm_words(hidden)
        if self.output is None:
            return nn.functional.linear(hidden, self.words.table.weight)
        return self.output(hidden)


class DecoderLayer(nn.Module):
    """Causal attention over words, attention over the memory, feed-forward; see `read_words` for shapes."""

    def __init__(self, num_heads: int, blocks: Blocks) -> None:
        super().__init__()
        self.self_attention, self.cross_attention = (Attention(blocks.width, num_heads) for _ in range(2))
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
        read = self.around_self.before(x)
        past = past.append(self.self_attention.read(read))
        x = self.around_self.after(x, self.self_attention(read, past, causal)[0])
        seen, weights = self.cross_attention(self.around_cross.before(x), memory, bias)
        x = self.around_cross.after(x, seen)
        read = self.around_feed_forward.before(x)
        return self.around_feed_forward.after(x, self.feed_forward(read)), past, weights
