"""The Meshed-Memory Transformer beyond the contract: its size, and what the released code gets wrong."""

from __future__ import annotations

import pytest
import torch

from easycap.models.decoders.m2 import Mesh, MeshedMemory
from easycap.models.decoders.transformer_blocks import sinusoids
from easycap.models.image_tokens.grid import All
from easycap.types import Memory

TINY = {
    "width": 16,
    "num_layers": 2,
    "num_levels": 2,
    "num_heads": 2,
    "feed_forward_dim": 32,
    "num_memory_vectors": 4,
    "max_length": 6,
    "dropout": 0.0,
    "dropout_words": True,
    "dropout_feed_forward": False,
    "mesh": Mesh.paper,
    "raw_features": True,
    "stored_positions": False,
    "channels": 5,
    "segments": (),
    "vocab_size": 30,
}
PAPER = {
    "width": 512,
    "num_layers": 3,
    "num_levels": 3,
    "num_heads": 8,
    "feed_forward_dim": 2048,
    "num_memory_vectors": 40,
    "max_length": 55,
    "dropout": 0.1,
    "dropout_words": True,
    "dropout_feed_forward": False,
    "raw_features": True,
    "stored_positions": False,
    "channels": 2048,
    "segments": (),
    "vocab_size": 10_201,
}


@pytest.mark.parametrize("mesh", Mesh)
def test_the_papers_setting_has_the_release_s_parameters(mesh: Mesh) -> None:
    """The release counts its frozen position table, 55 x 512; here it is a buffer of the same size."""
    with torch.device("meta"):
        decoder = MeshedMemory(**PAPER, mesh=mesh)
        image_tokens = All(channels=2048, memory_dim=decoder.memory_dim, source_grid=None)
    assert sum(p.numel() for p in image_tokens.parameters()) == 0
    trained = sum(p.numel() for p in decoder.parameters())
    assert decoder.words.positions.shape == (55, 512)
    assert trained + decoder.words.positions.numel() == 38_439_424


def test_positions_and_memory_vectors_keep_their_own_distribution() -> None:
    torch.manual_seed(0)
    decoder = MeshedMemory(**(TINY | {"width": 128, "num_heads": 4, "num_memory_vectors": 200}))
    assert torch.equal(decoder.words.positions, sinusoids(6, 128))
    attention = decoder.encoder[0].attention
    assert attention.memory_keys.std().item() == pytest.approx(1 / 32, rel=0.05)
    assert attention.memory_values.std().item() == pytest.approx(1 / 200, rel=0.05)


@pytest.mark.parametrize("mesh", Mesh)
def test_the_padding_mask_fires(mesh: Mesh) -> None:
    """Rows of zeros become non-zero by bias and LN; added padding must change no logit and no key of real positions."""
    torch.manual_seed(0)
    decoder = MeshedMemory(**(TINY | {"mesh": mesh})).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    tokens = torch.randn(2, 4, 5)
    padded = torch.cat([tokens, torch.zeros(2, 20, 5)], 1)
    words = torch.randint(0, 30, (2, 6))

    def read(tokens: torch.Tensor, masked: bool):
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
        mask[:, 4:] = not masked
        state = decoder.start(Memory(tokens, mask, {"image": slice(0, tokens.shape[1])}))
        return state.memory[-1].keys[..., :4, :], decoder(words, state).logits

    torch.testing.assert_close(read(padded, True), read(tokens, True), rtol=1e-5, atol=1e-5)
    assert (read(padded, False)[1] - read(tokens, True)[1]).abs().max() > 0.1, "what the release computes"


def test_attention_is_over_real_slots_not_over_memory_vectors() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True]])
    decoder = MeshedMemory(**TINY)
    memory = Memory(torch.randn(2, 3, 5), mask, {"image": slice(0, 3)})
    attention = decoder(torch.ones(2, 4, dtype=torch.long), decoder.start(memory)).attention
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 4))
    assert not attention[0, :, 2].any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_memory_vectors": -1}, "decoder.num_memory_vectors=-1"),
        ({"num_levels": 0}, "decoder.num_levels=0"),
        ({"num_heads": 3}, "decoder.num_heads=3 must divide"),
    ],
)
def test_wrong_settings_are_named(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MeshedMemory(**(TINY | settings))
