"""Words beside an image as slots of the memory: its tags, or a draft of its caption."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from easycap.types import Decoder, Memory


class ContextWords(nn.Module):
    """Vectors of words from the decoder's own table (N,M,E) -> slots (N,M,D).

    A prefix decoder reads them as what they are, words: nothing is learned here. For one that looks at its memory they
    are mapped to its width, and a learned vector per slot says where a word stands; the map's bias tells the segment
    from the image. At most `max_words` slots.
    """

    def __init__(self, decoder: Decoder, *, max_words: int, pad_id: int) -> None:
        super().__init__()
        self.max_words, self.pad_id = max_words, pad_id
        self.project = self.slots = None
        if not decoder.prefix:
            self.project = nn.Linear(decoder.word_table.embedding_dim, decoder.memory_dim)
            self.slots = nn.Parameter(torch.randn(max_words, decoder.memory_dim) * 0.02)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        if self.project is None:
            return vectors
        return self.project(vectors) + self.slots[: vectors.shape[1]]


def joined(parts: Sequence[tuple[str, torch.Tensor, torch.Tensor]]) -> Memory:
    """Segments, each its name, slots (N,M,D) and mask (N,M), one after another -> Memory."""
    segments, end = {}, 0
    for name, tokens, _ in parts:
        segments[name] = slice(end, end + tokens.shape[1])
        end = segments[name].stop
    if len(parts) == 1:
        return Memory(*parts[0][1:], segments)
    return Memory(torch.cat([p[1] for p in parts], 1), torch.cat([p[2] for p in parts], 1), segments)
