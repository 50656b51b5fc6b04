"""Captioners of one-pixel images with any decoder and vocabulary, and what self-critical training asks of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from helpers.tiny_decoders import TINY as DECODERS
from helpers.tiny_decoders import VARIANTS
from torch import nn

from easycap.config.instantiate import build, special_ids
from easycap.data.loader import Collate
from easycap.models.captioner import Captioner
from easycap.models.condition_tokens import ConditionTokens
from easycap.models.decoders.attention_lstm import Attention
from easycap.registry import names
from easycap.types import Batch, Example, Features, Preprocessing, TextCondition, Vocabulary

WIDTH = 6


class Pixels(nn.Module):
    """The image as one patch: an encoder with nothing to learn."""

    channels, grid = WIDTH, None
    preprocessing = Preprocessing(size=1, mean=(0.5,) * 3, std=(0.5,) * 3)
    calls = 0

    def forward(self, images: torch.Tensor) -> Features:
        self.calls += 1
        patches = images.flatten(1).repeat(1, WIDTH // 3).unsqueeze(1)
        return Features(patches, patches.new_ones(patches.shape[:2], dtype=torch.bool), None)


class AsTheyAre(nn.Module):
    def forward(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        return features.patches, features.mask


MAX_LENGTH = 6


NUM_TOKENS = 3


PAIRS = [(name, vocabulary) for name in names("decoder") for vocabulary in names("vocab")]


REFERENCES = {"x": ("a dog and a cat", "the dog"), "y": ("two cats", "a red ball")}


class Letters:
    """Rewards lower-case letters; it remembers what it was asked."""

    signature = "letters"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bool]] = []

    def __call__(self, ids: Sequence[str], captions: Sequence[str], ended: Sequence[bool]) -> dict:
        self.asked += zip(ids, captions, ended, strict=True)
        return {"letters": np.array([sum(map(str.islower, text)) for text in captions], float)}

    def total(self, found: Mapping[str, np.ndarray]) -> np.ndarray:
        return found["letters"]


class Tokens(nn.Module):
    """One patch -> some image tokens of the decoder's width."""

    grid = None

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, NUM_TOKENS * width)

    def forward(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self.linear(features.patches[:, 0] / 2).unflatten(1, (NUM_TOKENS, -1))
        return tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool)


def captioner_of(name: str, words: Vocabulary, *segments: str) -> Captioner:
    """In training, with dropout wherever the decoder has one, and text conditions `segments`."""
    name, changes = VARIANTS.get(name, (name, {}))
    settings = {"name": name, **DECODERS[name], **changes}
    if "dropout" in settings:
        settings["dropout"] = 0.5
    if "attention" in settings:
        settings["attention"] = Attention.soft
    if settings.get("segments"):
        settings["segments"] += tuple(segment for segment in segments if segment not in settings["segments"])
    torch.manual_seed(0)
    decoder = build(
        "decoder", settings, channels=12, vocab_size=len(words), subword_ids=None, **special_ids(words)
    )
    with torch.no_grad():  # weights as they are drawn say nearly the same whatever they read
        for parameter in decoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3 / parameter.std())
    context = {segment: ConditionTokens(decoder, max_length=5, pad_id=words.pad_id) for segment in segments}
    image_tokens = Tokens(decoder.memory_dim)
    return Captioner(encoder=Pixels(), image_tokens=image_tokens, decoder=decoder, context=context).train()


def batch_of(
    words: Vocabulary, context: Mapping[str, TextCondition] | None = None, epoch: int | None = None
) -> Batch:
    collate = Collate(words, context or {}, max_length=MAX_LENGTH, captions_per_image=1, seed=0)
    collate.epoch = epoch
    pixels = torch.tensor([[10, 200, 90], [250, 40, 10]], dtype=torch.uint8).view(2, 3, 1, 1)
    pairs = zip(REFERENCES.items(), pixels, strict=True)
    return collate([(Example(i, None, references), image) for (i, references), image in pairs])
