"""ClipCap's second mapper: a Transformer over a vector cut into pieces, and constants which become the tokens."""

from __future__ import annotations

import torch
from torch import nn

from easycap.errors import UserError
from easycap.models.checks import check_count
from easycap.models.decoders.transformer_blocks import (
    Attention,
    Blocks,
    EncoderLayer,
    LayerNormKind,
    Norm,
)
from easycap.registry import register
from easycap.types import Features


@register("image_tokens", "mapper")
class Mapper(nn.Module):
    """The mean of the patches (N,C) -> Linear to `num_pieces` vectors; they and K learned constants attend to each
    other.

    What stands at the constants after `num_layers` pre-norm layers, whose feed-forward blocks are 2 D wide, is the
    tokens (N,K,D) (Mokady et al., 2111.09734, section 3.3). Unlike the release's, queries, keys and values have biases.
    Raises `UserError` for sizes that do not fit.
    """

    grid = None

    def __init__(
        self,
        channels: int,
        memory_dim: int,
        *,
        count: int,
        num_pieces: int,
        num_layers: int,
        num_heads: int,
        normalize: bool,
    ) -> None:
        super().__init__()
        check_count(count)
        if num_pieces < 1 or num_layers < 1:
            raise UserError(
                f"image_tokens.num_pieces={num_pieces} and image_tokens.num_layers={num_layers} must be at least 1"
            )
        if num_heads < 1 or memory_dim % num_heads:
            raise UserError(
                f"image_tokens.num_heads={num_heads} must divide the decoder's memory width {memory_dim}"
            )
        self.num_pieces, self.normalize = num_pieces, normalize
        self.cut = nn.Linear(channels, num_pieces * memory_dim)
        self.constants = nn.Parameter(torch.randn(count, memory_dim))
        blocks = Blocks(memory_dim, 2 * memory_dim, 0.0, 0.0, Norm.pre, LayerNormKind.torch)
        self.layers = nn.ModuleList(
            EncoderLayer(Attention(memory_dim, num_heads), blocks) for _ in range(num_layers)
        )

    def forward(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        pieces = self.cut(features.mean(normalize=self.normalize)).unflatten(-1, (self.num_pieces, -1))
        x = torch.cat([pieces, self.constants.expand(pieces.shape[0], -1, -1)], 1)
        for layer in self.layers:
            x = layer(x, None)
        tokens = x[:, self.num_pieces :]
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
