"""decoder=m2 against the equations of 1912.08226, word by word without any cache."""

from __future__ import annotations

import math

import pytest
import torch
from naive_transformer import attend, embed, feed_forward, normalise, project

from easycap.models.decoders.m2 import Mesh, MeshedMemory
from easycap.types import Memory

N, M, T, V = 2, 5, 4, 11
SIZES = {
    "width": 8,
    "num_layers": 2,
    "num_levels": 3,
    "num_heads": 2,
    "feed_forward_dim": 12,
    "raw_features": True,
    "channels": 6,
}


def built(mesh: Mesh, num_memory_vectors: int) -> MeshedMemory:
    torch.manual_seed(0)
    decoder = MeshedMemory(
        **SIZES,
        num_memory_vectors=num_memory_vectors,
        max_words=T,
        dropout=0.0,
        mesh=mesh,
        segments=(),
        vocab_size=V,
    )
    with (
        torch.no_grad()
    ):  # biases and normalisation weights away from 0 and 1, or their absence would not show
        for parameter in decoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return decoder.eval()


def encode(decoder: MeshedMemory, slots: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    """The slots at each level: Z = AddNorm(M_mem(X)), X' = AddNorm(F(Z)) (equations 3 and 4)."""
    levels = []
    for layer in decoder.encoder:
        attention, extra = layer.attention, []
        if attention.num_vectors:
            d = SIZES["width"] // SIZES["num_heads"]
            keys = attention.memory_keys * math.sqrt(d)
            values = attention.memory_values * math.sqrt(attention.num_vectors)
            extra = list(zip(keys, values, strict=True))
        slots = [
            normalise(layer.around_attention.norm, x + attend(attention, x, slots, extra)) for x in slots
        ]
        slots = [
            normalise(layer.around_feed_forward.norm, x + feed_forward(layer.feed_forward, x)) for x in slots
        ]
        levels.append(slots)
    return levels


def mesh_of(layer, mesh: Mesh, s: torch.Tensor, levels: list[list[torch.Tensor]]) -> torch.Tensor:
    """Equations 5 to 7, and the released code's variant."""
    total = torch.zeros_like(s)
    for gate, slots in zip(layer.gates, levels, strict=True):
        c = attend(layer.cross_attention, s, slots)
        if mesh is Mesh.release:
            c = normalise(layer.around_cross.norm, s + c)
        alpha = 1 / (1 + torch.exp(-(gate.weight @ torch.cat([s, c]) + gate.bias)))
        total = total + alpha * c
    if mesh is Mesh.release:
        return total / math.sqrt(len(levels))
    return normalise(layer.around_cross.norm, s + total)


def next_word(
    decoder: MeshedMemory, mesh: Mesh, levels: list[list[torch.Tensor]], words: list[int]
) -> torch.Tensor:
    """Logits (V,) of the word after `words`; everything is computed anew."""
    states = [embed(decoder.words, word, index) for index, word in enumerate(words)]
    for layer in decoder.layers:
        states = [
            normalise(layer.around_self.norm, x + attend(layer.self_attention, x, states[: t + 1]))
            for t, x in enumerate(states)
        ]
        states = [mesh_of(layer, mesh, x, levels) for x in states]
        states = [
            normalise(layer.around_feed_forward.norm, x + feed_forward(layer.feed_forward, x)) for x in states
        ]
    return decoder.output.weight @ states[-1]


@pytest.mark.parametrize(
    ("mesh", "num_memory_vectors"), [(Mesh.paper, 3), (Mesh.paper, 0), (Mesh.release, 3)]
)
@torch.no_grad()
def test_logits_are_those_of_the_equations(mesh: Mesh, num_memory_vectors: int) -> None:
    decoder = built(mesh, num_memory_vectors)
    tokens = torch.randn(N, M, decoder.memory_dim)
    mask = torch.tensor([[True] * M, [True, False, True, True, False]])
    words = torch.randint(0, V, (N, T))
    logits = decoder(words, decoder.start(Memory(tokens, mask, {"image": slice(0, M)}))).logits
    for row in range(N):
        levels = encode(decoder, [project(decoder.project, x) for x in tokens[row, mask[row]]])
        for t in range(T):
            expected = next_word(decoder, mesh, levels, words[row, : t + 1].tolist())
            torch.testing.assert_close(logits[row, t], expected, rtol=1e-5, atol=1e-5)
