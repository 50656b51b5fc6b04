"""Image tokens by K learned queries that look at the patches."""

from __future__ import annotations

import torch
from torch import nn

from easycap.errors import UserError
from easycap.models.checks import check_count
from easycap.registry import register
from easycap.types import Features


@register("image_tokens", "resampler")
class Resampler(nn.Module):
    """K learned queries attend over the patches, `num_layers` times: Features -> tokens (N,K,D).

    Patches are projected to D and, where they form a grid of known size, get a learned position each. Each layer is
    pre-norm: attention over the patches, then a feed-forward block (the Perceiver's cross-attention, 2103.03206,
    as Flamingo's resampler uses it, 2204.14198, without attention among the queries).
    """

    grid = None

    def __init__(
        self,
        channels: int,
        memory_dim: int,
        source_grid: tuple[int, int] | None,
        *,
        count: int,
        num_layers: int,
        num_heads: int,
    ) -> None:
        super().__init__()
        check_count(count)
        if num_layers < 1:
            raise UserError(f"image_tokens.num_layers={num_layers} must be at least 1")
        if num_heads < 1 or memory_dim % num_heads:
            raise UserError(
                f"image_tokens.num_heads={num_heads} must divide the decoder's memory width {memory_dim}"
            )
        self.project = nn.Linear(channels, memory_dim)
        self.norm_cells = nn.LayerNorm(memory_dim)
        patches = source_grid[0] * source_grid[1] if source_grid else 0
        self.positions = nn.Parameter(torch.randn(patches, memory_dim) * 0.02) if patches else None
        self.queries = nn.Parameter(torch.randn(count, memory_dim) * 0.02)
        self.layers = nn.ModuleList(_Layer(memory_dim, num_heads) for _ in range(num_layers))

    def forward(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        patches = self.project(features.patches)
        if self.positions is not None:
            patches = patches + self.positions
        patches = self.norm_cells(patches)
        tokens = self.queries.expand(patches.shape[0], -1, -1)
        for layer in self.layers:
            tokens = layer(tokens, patches, features.mask)
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)


class _Layer(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_attention = nn.LayerNorm(dim)
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )

    def forward(self, tokens: torch.Tensor, patches: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            project(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (N, heads, K or R, d)
            for project, x in (
                (self.query, self.norm_attention(tokens)),
                (self.key, patches),
                (self.value, patches),
            )
        )
        seen = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        tokens = tokens + self.out(seen.transpose(1, 2).flatten(2))
        return tokens + self.feed_forward(tokens)
