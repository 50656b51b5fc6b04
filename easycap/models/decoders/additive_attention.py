"""Additive attention over memory, and what a decoder that attends keeps of the memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from easycap.errors import UserError
from easycap.types import Memory


@dataclass(frozen=True)
class AttendedMemory:
    """Memory of B rows: tokens (B,M,D), keys (B,M,A) projected once, mask (B,M).

    is_image (B,M) is True for real patches of the image segment. owners (B,) says which image a row belongs to.
    """

    tokens: torch.Tensor
    keys: torch.Tensor
    mask: torch.Tensor
    is_image: torch.Tensor
    owners: torch.Tensor

    def select(self, rows: torch.Tensor) -> AttendedMemory:
        owners = self.owners.index_select(0, rows)
        # Beams that change places within their image: nothing to copy. A GPU copies faster than it is asked.
        same_size = owners.device.type == "cpu" and owners.shape == self.owners.shape
        if same_size and torch.equal(owners, self.owners):
            return self
        tokens, keys, mask, is_image = (
            tensor.index_select(0, rows) for tensor in (self.tokens, self.keys, self.mask, self.is_image)
        )
        return AttendedMemory(tokens, keys, mask, is_image, owners)

    def weighted_sum(self, weights: torch.Tensor) -> torch.Tensor:
        """weights (B,M) -> (B,D)."""
        return torch.bmm(weights.unsqueeze(1).to(self.tokens.dtype), self.tokens).squeeze(1)


class AdditiveAttention(nn.Module):
    """weights = softmax over valid positions i of w^T tanh(W_m m_i + W_q q) (Bahdanau et al., 1409.0473, A.1.2); with
    `relu`, ReLU in the place of tanh.
    """

    def __init__(
        self, *, memory_dim: int, query_dim: int, attention_dim: int, bias: bool, relu: bool
    ) -> None:
        super().__init__()
        self.activation = torch.relu if relu else torch.tanh
        self.key = nn.Linear(memory_dim, attention_dim, bias=bias)
        self.query = nn.Linear(query_dim, attention_dim, bias=False)
        self.energy = nn.Linear(attention_dim, 1, bias=False)  # a bias would cancel in the softmax

    def project_memory(self, memory: Memory) -> AttendedMemory:
        """Compute the keys of the memory, once per image."""
        is_image = torch.zeros_like(memory.mask)
        is_image[:, memory.segments["image"]] = memory.mask[:, memory.segments["image"]]
        owners = torch.arange(memory.tokens.shape[0], device=memory.tokens.device)
        keys = self.key(memory.tokens)
        # Under autocast the tokens are converted here once, instead of before each word.
        return AttendedMemory(memory.tokens.to(keys.dtype), keys, memory.mask, is_image, owners)

    def forward(self, query: torch.Tensor, memory: AttendedMemory) -> torch.Tensor:
        """query (B,Q) -> weights (B,M), at least float32, zero on masked positions."""
        energies = self.energy(self.activation(memory.keys + self.query(query).unsqueeze(1))).squeeze(2)
        energies = energies.to(torch.promote_types(energies.dtype, torch.float32))
        return energies.masked_fill(~memory.mask, float("-inf")).softmax(1)


def image_mean(memory: Memory) -> torch.Tensor:
    """Return the mean (N,D) of the real patches of the image segment: neither padding nor other segments count."""
    image = memory.segments["image"]
    weights = memory.mask[:, image].unsqueeze(2).to(memory.tokens.dtype)
    return (memory.tokens[:, image] * weights).sum(1) / weights.sum(1)


def width_of_memory(width: int | None, channels: int) -> int:
    """Return the memory width a decoder wants: `width`, or the encoder's own channels where it is None."""
    if width is None:
        return channels
    if width < 1:
        raise UserError(
            f"decoder.memory_width={width} must be at least 1, or null for the encoder's channels"
        )
    return width
