"""decoder=transformer against the paper's equations, word by word without any cache."""

from __future__ import annotations

import pytest
import torch
from helpers.naive_transformer import attend, embed, feed_forward, normalise, project

from easycap.models.decoders.transformer import Transformer
from easycap.models.decoders.transformer_blocks import LayerNormKind, Norm
from easycap.types import Memory

N, M, T, V = 2, 5, 4, 11
SIZES = {"width": 8, "num_layers": 2, "num_encoder_layers": 2, "num_heads": 2, "feed_forward_dim": 12}


def built(norm: Norm, tied: bool, raw_features: bool, kind: LayerNormKind) -> Transformer:
    torch.manual_seed(0)
    decoder = Transformer(
        **SIZES,
        max_length=T,
        dropout=0.0,
        dropout_words=True,
        dropout_feed_forward=False,
        layer_norm=kind,
        norm=norm,
        tied=tied,
        raw_features=raw_features,
        project_norm=True,
        output_bias=False,
        segments=(),
        channels=6,
        vocab_size=V,
    )
    with (
        torch.no_grad()
    ):  # biases and normalisation weights away from 0 and 1, or their absence would not show
        for parameter in decoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return decoder.eval()


def around(residual, x, f):
    """LN(x + f(x)), or x + f(LN(x)) before a last LN (Xiong et al. 2002.04745)."""
    if residual.first:
        return x + f(normalise(residual.norm, x))
    return normalise(residual.norm, x + f(x))


def encode(decoder: Transformer, vectors: list[torch.Tensor]) -> list[torch.Tensor]:
    for layer in decoder.encoder:
        before = layer.around_attention
        read = [normalise(before.norm, x) if before.first else x for x in vectors]
        vectors = [
            around(before, x, lambda q, read=read, layer=layer: attend(layer.attention, q, read))
            for x in vectors
        ]
        vectors = [
            around(layer.around_feed_forward, x, lambda q, layer=layer: feed_forward(layer.feed_forward, q))
            for x in vectors
        ]
    return vectors


def next_word(decoder: Transformer, vectors: list[torch.Tensor], words: list[int]) -> torch.Tensor:
    """Logits (V,) of the word after `words`; everything is computed anew."""
    states = [embed(decoder.words, word, index) for index, word in enumerate(words)]
    for layer in decoder.layers:
        before = layer.around_self
        read = [normalise(before.norm, x) if before.first else x for x in states]
        states = [
            around(
                before,
                x,
                lambda q, t=t, read=read, layer=layer: attend(layer.self_attention, q, read[: t + 1]),
            )
            for t, x in enumerate(states)
        ]
        states = [
            around(layer.around_cross, x, lambda q, layer=layer: attend(layer.cross_attention, q, vectors))
            for x in states
        ]
        states = [
            around(layer.around_feed_forward, x, lambda q, layer=layer: feed_forward(layer.feed_forward, q))
            for x in states
        ]
    last = states[-1]
    if decoder.layers[0].around_self.first:
        last = normalise(decoder.norm_words, last)
    table = decoder.words.table if decoder.output is None else decoder.output
    return table.weight @ last


@pytest.mark.parametrize(
    ("norm", "tied", "raw_features", "kind"),
    [
        (Norm.pre, True, False, LayerNormKind.torch),
        (Norm.post, False, True, LayerNormKind.torch),
        (Norm.pre, False, False, LayerNormKind.unbiased),
    ],
)
@torch.no_grad()
def test_logits_are_those_of_the_equations(
    norm: Norm, tied: bool, raw_features: bool, kind: LayerNormKind
) -> None:
    decoder = built(norm, tied, raw_features, kind)
    tokens = torch.randn(N, M, decoder.memory_dim)
    mask = torch.tensor([[True] * M, [True, False, True, True, False]])
    words = torch.randint(0, V, (N, T))
    logits = decoder(words, decoder.start(Memory(tokens, mask, {"image": slice(0, M)}))).logits
    for row in range(N):
        vectors = list(tokens[row, mask[row]])
        if raw_features:
            vectors = [project(decoder.project, x) for x in vectors]
        vectors = encode(decoder, vectors)
        if norm is Norm.pre:
            vectors = [normalise(decoder.norm_memory, x) for x in vectors]
        for t in range(T):
            expected = next_word(decoder, vectors, words[row, : t + 1].tolist())
            torch.testing.assert_close(logits[row, t], expected, rtol=1e-5, atol=1e-5)
