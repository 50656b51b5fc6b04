"""decoder=m2 against the equations of 1912.08226, word by word without any cache; dropout against the release's places.

aimagelab/meshed-memory-transformer at 239100b: models/transformer/attention.py:183-187 (on what attention says),
utils.py:47-53 (inside and after the feed-forward block), encoders.py:63-67 (on projected regions), decoders.py:84-89
(none on embedded words).
"""

from __future__ import annotations

import math

import pytest
import torch
from helpers.memories import show_dropouts
from helpers.naive_transformer import attend, embed, feed_forward, normalise, project

from easycap.config.compose import compose
from easycap.config.schema import check
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
    "stored_positions": False,
    "channels": 6,
}


def built(mesh: Mesh, num_memory_vectors: int, **dropouts: object) -> MeshedMemory:
    torch.manual_seed(0)
    decoder = MeshedMemory(
        **SIZES,
        num_memory_vectors=num_memory_vectors,
        max_length=T,
        **{"dropout": 0.0, "dropout_words": True, "dropout_feed_forward": False} | dropouts,
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


def encode(decoder: MeshedMemory, vectors: list[torch.Tensor], dropped: float) -> list[list[torch.Tensor]]:
    """The memory vectors at each level: Z = AddNorm(M_mem(X)), X' = AddNorm(F(Z)) (equations 3 and 4)."""
    levels = []
    for layer in decoder.encoder:
        attention, extra = layer.attention, []
        if attention.num_vectors:
            d = SIZES["width"] // SIZES["num_heads"]
            keys = attention.memory_keys * math.sqrt(d)
            values = attention.memory_values * math.sqrt(attention.num_vectors)
            extra = list(zip(keys, values, strict=True))
        vectors = [
            normalise(layer.around_attention.norm, x + dropped * attend(attention, x, vectors, extra))
            for x in vectors
        ]
        vectors = [
            normalise(
                layer.around_feed_forward.norm, x + dropped * feed_forward(layer.feed_forward, x, dropped)
            )
            for x in vectors
        ]
        levels.append(vectors)
    return levels


def mesh_of(
    layer, mesh: Mesh, s: torch.Tensor, levels: list[list[torch.Tensor]], dropped: float
) -> torch.Tensor:
    """Equations 5 to 7, and the released code's variant."""
    total = torch.zeros_like(s)
    for gate, vectors in zip(layer.gates, levels, strict=True):
        c = attend(layer.cross_attention, s, vectors)
        if mesh is Mesh.release:
            c = normalise(layer.around_cross.norm, s + dropped * c)
        alpha = 1 / (1 + torch.exp(-(gate.weight @ torch.cat([s, c]) + gate.bias)))
        total = total + alpha * c
    if mesh is Mesh.release:
        return total / math.sqrt(len(levels))
    return normalise(layer.around_cross.norm, s + dropped * total)


def next_word(
    decoder: MeshedMemory, mesh: Mesh, levels: list[list[torch.Tensor]], words: list[int], dropped: float
) -> torch.Tensor:
    """Logits (V,) of the word after `words`; everything is computed anew."""
    states = [embed(decoder.words, word, index) for index, word in enumerate(words)]
    for layer in decoder.layers:
        states = [
            normalise(layer.around_self.norm, x + dropped * attend(layer.self_attention, x, states[: t + 1]))
            for t, x in enumerate(states)
        ]
        states = [mesh_of(layer, mesh, x, levels, dropped) for x in states]
        states = [
            normalise(
                layer.around_feed_forward.norm, x + dropped * feed_forward(layer.feed_forward, x, dropped)
            )
            for x in states
        ]
    return decoder.output.weight @ states[-1]


def check_equations(decoder: MeshedMemory, mesh: Mesh, dropped: float) -> None:
    tokens = torch.randn(N, M, decoder.memory_dim)
    mask = torch.tensor([[True] * M, [True, False, True, True, False]])
    words = torch.randint(0, V, (N, T))
    logits = decoder(words, decoder.start(Memory(tokens, mask, {"image": slice(0, M)}))).logits
    for row in range(N):
        levels = encode(
            decoder, [project(decoder.project, x, dropped) for x in tokens[row, mask[row]]], dropped
        )
        for t in range(T):
            expected = next_word(decoder, mesh, levels, words[row, : t + 1].tolist(), dropped)
            torch.testing.assert_close(logits[row, t], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("mesh", "num_memory_vectors"), [(Mesh.paper, 3), (Mesh.paper, 0), (Mesh.release, 3)]
)
@torch.no_grad()
def test_logits_are_those_of_the_equations(mesh: Mesh, num_memory_vectors: int) -> None:
    check_equations(built(mesh, num_memory_vectors), mesh, 1.0)


@torch.no_grad()
def test_the_recipes_dropouts_are_where_the_release_has_them() -> None:
    settings = check(compose(["experiment=m2/resnet", "data.root=somewhere"])[0])["decoder"]
    names = ("dropout", "dropout_words", "dropout_feed_forward")
    decoder = built(settings["mesh"], 3, **{name: settings[name] for name in names})
    show_dropouts(decoder, 1.7)
    check_equations(decoder.train(), settings["mesh"], 1.7)
