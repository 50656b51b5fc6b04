"""Text conditions as positions of the memory: tags, or a draft of the caption."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from easycap.types import Decoder, Memory


class ConditionTokens(nn.Module):
    """Token embeddings of the decoder (N,M,E) -> memory tokens (N,M,D), at most `max_length` of them.

    A prefix decoder reads them as words of its own: nothing is learned here. For one that attends to its memory they
    are projected to its width, and a learned position embedding is added; the projection's bias tells the condition
    from the image.
    """

    def __init__(self, decoder: Decoder, *, max_length: int, pad_id: int) -> None:
        super().__init__()
        self.max_length, self.pad_id = max_length, pad_id
        self.project = self.slots = None
        if not decoder.prefix:
            self.project = nn.Linear(decoder.token_embedding.embedding_dim, decoder.memory_dim)
            self.slots = nn.Parameter(torch.randn(max_length, decoder.memory_dim) * 0.02)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        if self.project is None or self.slots is None:
            return vectors
        return self.project(vectors) + self.slots[: vectors.shape[1]]


def concatenate(parts: Sequence[tuple[str, torch.Tensor, torch.Tensor]]) -> Memory:
    """Segments, each its name, tokens (N,M,D) and mask (N,M), one after another -> Memory."""
    segments, end = {}, 0
    for name, tokens, _ in parts:
        segments[name] = slice(end, end + tokens.shape[1])
        end = segments[name].stop
    if len(parts) == 1:
        return Memory(*parts[0][1:], segments)
    return Memory(torch.cat([p[1] for p in parts], 1), torch.cat([p[2] for p in parts], 1), segments)
