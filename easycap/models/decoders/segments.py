"""Telling the memory's segments apart."""

from __future__ import annotations

import torch
from torch import nn

SEGMENTS = ("tags", "image", "draft")


class SegmentEmbedding(nn.Module):
    """Adds a learned vector per named segment to its slots: (N,M,D) -> (N,M,D).

    Without `names` it does nothing and has no parameters. Raises `ValueError` for a name there is no segment of, and
    for memory with a segment that has no vector.
    """

    def __init__(self, names: tuple[str, ...], width: int) -> None:
        super().__init__()
        wrong = [name for name in names if name not in SEGMENTS]
        if wrong or len(set(names)) < len(names):
            raise ValueError(
                f"decoder.segments={list(names)} must name each of {', '.join(SEGMENTS)} at most once"
            )
        self.names = names
        self.vectors = nn.Parameter(torch.randn(len(names), width) * 0.02) if names else None

    def forward(self, slots: torch.Tensor, segments: dict[str, slice]) -> torch.Tensor:
        if self.vectors is None:
            return slots
        missing = [name for name in segments if name not in self.names]
        if missing:
            raise ValueError(
                f"the memory has a segment {missing[0]!r} that decoder.segments={list(self.names)} "
                "does not name: add it, or tell no segments apart with decoder.segments=[]"
            )
        index = torch.empty(slots.shape[1], dtype=torch.long, device=slots.device)
        for name, part in segments.items():
            index[part] = self.names.index(name)
        return slots + self.vectors[index]
