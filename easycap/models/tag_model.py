"""Encoder + tagger: an image in, its tags out."""

from __future__ import annotations

import torch

from easycap.models.image_model import ImageModel
from easycap.registry import register
from easycap.types import Encoder, Inputs, Tagger


@register("tagger", "none")
def no_tagger() -> None:
    """task=caption trains no tag model."""


class TagModel(ImageModel):
    """Says which tags images have: images (N,3,H,W) uint8 -> probabilities (N, tags)."""

    def __init__(self, *, encoder: Encoder, tagger: Tagger) -> None:
        super().__init__(encoder)
        self.tagger = tagger

    def forward(self, inputs: Inputs, words: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of the images' tags as ids: words (N,T) with bos, targets (N,T) with eos, padded."""
        return self.tagger.loss(self.encode(inputs.images), words, targets)

    def probabilities(self, inputs: Inputs) -> torch.Tensor:
        """Return the probability of each tag (N, tags), 0..1."""
        return self.tagger.probabilities(self.encode(inputs.images)).float()
