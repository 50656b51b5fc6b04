"""Encoder + image tokens + words beside the image + decoder: an image in, logits of words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from easycap.models.context.words import ContextWords, joined
from easycap.models.decoders.segments import SEGMENTS
from easycap.models.image_model import ImageModel
from easycap.types import Decoder, Encoder, Features, ImageTokens, Inputs, Memory, Output, State


class Captioner(ImageModel):
    """Puts the parts together: images (N,3,H,W) uint8 -> Memory -> logits for rows of words.

    `context` has a module for each segment of words beside the image; `order` is that of the segments in the memory.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        image_tokens: ImageTokens,
        decoder: Decoder,
        context: Mapping[str, ContextWords] | None = None,
        order: Sequence[str] = SEGMENTS,
    ) -> None:
        super().__init__(encoder)
        self.image_tokens = image_tokens
        self.decoder = decoder
        self.context = nn.ModuleDict(context or {})
        self.order = order

    def remember(self, inputs: Inputs, features: Features | None = None) -> Memory:
        """Return the slots a decoder reads or looks at: the image tokens, with the words beside the image if any.

        `features` are what `encode` made of the images, where it has been asked before. Raises `ValueError` if a
        segment's words are missing.
        """
        parts = {"image": self.image_tokens(features or self.encode(inputs.images))}
        for name, module in self.context.items():
            if name not in inputs.context:
                raise ValueError(f"this captioner reads {name} beside an image, and there are none")
            ids = inputs.context[name]
            parts[name] = module(self.decoder.word_table(ids)), ids != module.pad_id
        return joined([(name, *parts[name]) for name in self.order if name in parts])

    def forward(
        self,
        inputs: Inputs,
        words: torch.Tensor,
        rows: torch.Tensor,
        own_words: torch.Tensor | None = None,
    ) -> Output:
        """N images and B captions of them -> Output; rows (B,) says which image a caption belongs to.

        An image and its memory are encoded once, however many captions it has. Where own_words (B,T) is True the
        decoder reads a word it draws itself in the place of the caption's (scheduled sampling).
        """
        state = self.decoder.start(self.remember(inputs))
        if own_words is not None:
            words = self._with_own_words(words, own_words, state.select(rows))
        return self.decoder(words, state.select(rows))

    @torch.no_grad()
    def _with_own_words(self, words: torch.Tensor, own_words: torch.Tensor, state: State) -> torch.Tensor:
        """Return words (B,T), those marked drawn from what the decoder says after the words before them."""
        columns = [words[:, 0]]
        for given, own in zip(words.T[1:], own_words.T[1:], strict=True):
            logits, state = self.decoder.step(columns[-1], state)
            drawn = torch.multinomial(logits.float().softmax(1), 1).squeeze(1)
            columns.append(torch.where(own, drawn, given))
        return torch.stack(columns, 1)
