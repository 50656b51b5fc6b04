"""The Transformer beyond the contract: its position table, its parameters, its attention, its errors."""

from __future__ import annotations

import pytest
import torch

from easycap.models.decoders.transformer import Transformer
from easycap.models.decoders.transformer_blocks import LayerNormKind, Norm, sinusoids
from easycap.types import Memory

TINY = {
    "width": 16,
    "num_layers": 2,
    "num_encoder_layers": 1,
    "num_heads": 2,
    "feed_forward_dim": 32,
    "max_length": 6,
    "dropout": 0.0,
    "dropout_words": True,
    "dropout_feed_forward": False,
    "layer_norm": LayerNormKind.torch,
    "norm": Norm.pre,
    "tied": True,
    "raw_features": False,
    "project_norm": True,
    "output_bias": False,
    "channels": 5,
    "segments": (),
    "vocab_size": 30,
}


def parameters(**settings) -> int:
    return sum(p.numel() for p in Transformer(**(TINY | settings)).parameters())


def memory_of(width: int, mask: torch.Tensor) -> Memory:
    return Memory(torch.randn(*mask.shape, width), mask, {"image": slice(0, mask.shape[1])})


def test_positions_are_the_papers_and_no_parameter() -> None:
    """An initialiser that runs over all parameters, or an optimiser, would overwrite a table among them."""
    decoder = Transformer(**TINY)
    for parameter in decoder.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(decoder.words.positions, sinusoids(6, 16))
    assert decoder.words.positions[3, :2].tolist() == pytest.approx([0.14112, -0.98999], abs=1e-5)


def test_a_padding_mask_fires_in_the_encoder_too() -> None:
    """Real positions must see nothing of padding, also with biases that make a zero row non-zero after LN."""
    decoder = Transformer(**(TINY | {"raw_features": True}))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.5)
    mask = torch.ones(1, 7, dtype=torch.bool)
    mask[:, 4:] = False
    padded = memory_of(5, mask)
    padded.tokens[:, 4:] = 0
    alone = Memory(padded.tokens[:, :4], mask[:, :4], {"image": slice(0, 4)})
    for seen, expected in zip(decoder.start(padded).memory, decoder.start(alone).memory, strict=True):
        torch.testing.assert_close(seen.keys[..., :4, :], expected.keys)


def test_attention_sums_to_one_over_real_positions() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True]])
    decoder = Transformer(**TINY)
    attention = decoder(torch.ones(2, 4, dtype=torch.long), decoder.start(memory_of(16, mask))).attention
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 4))
    assert not attention[0, :, 2].any()


def test_segments_cost_nothing_unless_named() -> None:
    assert parameters(segments=("tags", "image")) == parameters() + 2 * 16


def test_segments_are_told_apart() -> None:
    decoder = Transformer(**(TINY | {"segments": ("tags", "image"), "num_encoder_layers": 0})).eval()
    with torch.no_grad():
        decoder.segments.vectors.mul_(50)
    memory = memory_of(16, torch.ones(1, 4, dtype=torch.bool))
    words = torch.ones(1, 3, dtype=torch.long)
    first, second = (
        decoder(words, decoder.start(memory._replace(segments=segments))).logits
        for segments in (
            {"tags": slice(0, 2), "image": slice(2, 4)},
            {"image": slice(0, 2), "tags": slice(2, 4)},
        )
    )
    assert not torch.allclose(first, second, atol=1e-3)


def test_a_segment_without_a_vector_is_named() -> None:
    decoder = Transformer(**(TINY | {"segments": ("tags",)}))
    with pytest.raises(ValueError, match=r"segment 'image' that decoder.segments=\['tags'\]"):
        decoder.start(memory_of(16, torch.ones(1, 4, dtype=torch.bool)))


def test_tying_saves_the_output_layer() -> None:
    assert parameters(tied=False) == parameters() + 30 * 16


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_heads": 3}, "decoder.num_heads=3 must divide decoder.width=16"),
        ({"width": 15, "num_heads": 3}, "decoder.width=15 must be even"),
        ({"num_encoder_layers": -1}, "decoder.num_encoder_layers=-1"),
        ({"dropout": 1.0}, "decoder.dropout=1.0"),
        ({"segments": ("image", "picture")}, "must name each of draft, image, tags"),
    ],
)
def test_wrong_settings_are_named(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Transformer(**(TINY | settings))
