"""What the parity tests share: small memories with holes in them, captions, weights that matter."""

from __future__ import annotations

import torch
from torch import nn

from easycap.types import Memory

NUM_TAGS = 2


def random_memory(width: int, *, num_positions: int = 7) -> Memory:
    """Three images with two tags: all positions valid; a tag and a patch missing; patches padded at the end."""
    tokens = torch.randn(3, num_positions, width, generator=torch.manual_seed(1))
    mask = torch.ones(3, num_positions, dtype=torch.bool)
    mask[1, [0, 4]] = False
    mask[2, 5:] = False
    return Memory(tokens, mask, {"tags": slice(0, NUM_TAGS), "image": slice(NUM_TAGS, num_positions)})


def random_words(vocab_size: int, *, num_words: int = 6) -> torch.Tensor:
    """Three captions: bos is 1; the second and the third end early and are padded with 0."""
    words = torch.randint(4, vocab_size, (3, num_words), generator=torch.manual_seed(2))
    words[:, 0] = 1
    words[1, 4:] = 0
    words[2, 3:] = 0
    return words


def pad_memory(memory: Memory) -> Memory:
    """The same memory with four masked patches more, full of noise."""
    noise = torch.full((len(memory.tokens), 4, memory.tokens.shape[2]), 9.0)
    tokens = torch.cat([memory.tokens, noise], 1)
    mask = torch.cat([memory.mask, torch.zeros(len(noise), 4, dtype=torch.bool)], 1)
    return Memory(tokens, mask, memory.segments | {"image": slice(NUM_TAGS, tokens.shape[1])})


def naive_lstm(gates: torch.Tensor, cell: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """gates (4H,) before their non-linearities, cell (H,) -> hidden, cell."""
    i, f, g, o = gates.view(4, -1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def spread_weights(module: nn.Module) -> nn.Module:
    """Weights and biases large enough that every term of an equation shows."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.6)
    return module


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


class Factor(nn.Module):
    """In the place of a dropout: in training what goes through it is multiplied, so that its place shows."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor if self.training else x


def show_dropouts(module: nn.Module, factor: float) -> None:
    """Put a `Factor` in the place of each dropout that drops anything."""
    for part in list(module.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.Dropout) and child.p > 0:
                setattr(part, name, Factor(factor))
