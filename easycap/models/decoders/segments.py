"""Segments of the memory: the image, and each text condition."""

from __future__ import annotations

from enum import Enum

import torch
from torch import nn

from easycap.errors import UserError
from easycap.registry import condition_groups


class SegmentEmbedding(nn.Module):
    """Adds a learned vector per named segment to its tokens: (N,M,D) -> (N,M,D).

    Without `names` it does nothing and has no parameters. Raises `UserError` for a name there is no segment of, and
    for memory with a segment that has no vector.
    """

    def __init__(self, names: tuple[str, ...], width: int) -> None:
        super().__init__()
        allowed = sorted({"image", *condition_groups()}) if names else []
        wrong = [name for name in names if name not in allowed]
        if wrong or len(set(names)) < len(names):
            raise UserError(
                f"decoder.segments={list(names)} must name each of {', '.join(allowed)} at most once"
            )
        self.names = names
        self.vectors = nn.Parameter(torch.randn(len(names), width) * 0.02) if names else None

    def forward(self, tokens: torch.Tensor, segments: dict[str, slice]) -> torch.Tensor:
        if self.vectors is None:
            return tokens
        missing = [name for name in segments if name not in self.names]
        if missing:
            raise UserError(
                f"the memory has a segment {missing[0]!r} that decoder.segments={list(self.names)} "
                "does not name: add it, or tell no segments apart with decoder.segments=[]"
            )
        index = torch.empty(tokens.shape[1], dtype=torch.long, device=tokens.device)
        for name, part in segments.items():
            index[part] = self.names.index(name)
        return tokens + self.vectors[index]


class Placement(Enum):
    """Where a text condition stands in the memory; only decoders that read it position by position can tell."""

    before_image = "before_image"
    after_image = "after_image"
