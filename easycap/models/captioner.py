"""Encoder + image tokens + text conditions + decoder: an image in, logits of words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from easycap.errors import UserError
from easycap.models.condition_tokens import ConditionTokens, concatenate
from easycap.models.image_model import ImageModel
from easycap.types import Decoder, Encoder, Features, ImageTokens, Inputs, Memory, Output, State


class Captioner(ImageModel):
    """Puts the parts together: images (N,3,H,W) uint8 -> Memory -> logits for rows of words.

    `context` has a module for each text condition. `order` is that of the memory's segments, "image" and the names of
    `context`; by default the image comes first.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        image_tokens: ImageTokens,
        decoder: Decoder,
        context: Mapping[str, ConditionTokens] | None = None,
        order: Sequence[str] = (),
    ) -> None:
        super().__init__(encoder)
        self.image_tokens = image_tokens
        self.decoder = decoder
        self.context = nn.ModuleDict(context or {})
        self.order = order or ("image", *self.context)

    def build_memory(self, inputs: Inputs, features: Features | None = None) -> Memory:
        """Return what a decoder reads or attends to: the image tokens and the text conditions.

        `features` are the images' if they were encoded before. Raises `UserError` if a condition's text is missing.
        """
        parts: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        parts["image"] = self.image_tokens(features or self.features_of(inputs))
        for name, module in self.context.items():
            if name not in inputs.context:
                raise UserError(f"this captioner is conditioned on {name}, and the inputs have none")
            ids = inputs.context[name]
            assert isinstance(module, ConditionTokens)
            parts[name] = module(self.decoder.token_embedding(ids)), ids != module.pad_id
        return concatenate([(name, *parts[name]) for name in self.order if name in parts])

    def forward(
        self,
        inputs: Inputs,
        input_ids: torch.Tensor,
        rows: torch.Tensor,
        own_words: torch.Tensor | None = None,
        real: torch.Tensor | None = None,
    ) -> Output:
        """N images and B captions of them -> Output; rows (B,) says which image a caption belongs to.

        Where real (B,T) is False there is only padding up to the row's end: a decoder may leave it out, and return
        logits (P,V) of the real words.

        An image and its memory are encoded once, however many captions it has. Where own_words (B,T) is True the
        decoder reads a word it draws itself in the place of the caption's (scheduled sampling).
        """
        memory = self.build_memory(inputs)
        if real is not None and hasattr(self.decoder, "read_real"):
            if own_words is not None:
                with torch.no_grad():
                    state = self.decoder.start(memory).select(rows)
                input_ids = self._with_own_words(input_ids, own_words, state)
            return self.decoder.read_real(input_ids, real, memory, rows)
        state = self.decoder.start(memory).select(rows)
        if own_words is not None:
            input_ids = self._with_own_words(input_ids, own_words, state)
        decoder: Any = self.decoder
        if real is not None and can_skip_padding(decoder, real.device):
            return decoder(input_ids, state, real)
        return decoder(input_ids, state)

    @torch.no_grad()
    def _with_own_words(self, words: torch.Tensor, own_words: torch.Tensor, state: State) -> torch.Tensor:
        """Return words (B,T), those marked drawn from what the decoder predicts after the words before them."""
        columns = [words[:, 0]]
        for given, own in zip(words.T[1:], own_words.T[1:], strict=True):
            logits, state = self.decoder.step(columns[-1], state)
            drawn = torch.multinomial(logits.float().softmax(1), 1).squeeze(1)
            columns.append(torch.where(own, drawn, given))
        return torch.stack(columns, 1)


def can_skip_padding(decoder: Any, device: torch.device) -> bool:
    """Whether `decoder` can leave out padding, and that is faster: on a GPU, counting the real words means waiting."""
    return device.type == "cpu" and getattr(decoder, "skips_padding", False)
