"""Encoder + image tokens + decoder: an image in, logits of words out."""

from __future__ import annotations

import torch
from torch import nn

from easycap.types import Decoder, Encoder, Features, ImageTokens, Memory, Output, State


class Captioner(nn.Module):
    """Puts the parts together: images (N,3,H,W) uint8 -> Memory -> logits for rows of words.

    Normalisation happens here, on the device, with the encoder's own mean and std. While the encoder is frozen it
    gets no gradient and stays in eval mode, so that BatchNorm statistics do not drift.
    """

    def __init__(self, *, encoder: Encoder, image_tokens: ImageTokens, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.image_tokens = image_tokens
        self.decoder = decoder
        self.encoder_frozen = False
        mean, std = encoder.preprocessing.mean, encoder.preprocessing.std
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)

    def freeze_encoder(self, frozen: bool) -> None:
        """Freeze or release the encoder's weights and BatchNorm statistics."""
        self.encoder_frozen = frozen
        self.encoder.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Captioner:
        super().train(mode)
        if self.encoder_frozen:
            self.encoder.eval()
        return self

    def encode(self, images: torch.Tensor) -> Features:
        """images (N,3,H,W) uint8, or the cells (N,R,C) that the encoder has made of them before -> Features."""
        if images.ndim == 3:
            cells = images.to(self.mean.dtype)
            return Features(cells, cells.new_ones(cells.shape[:2], dtype=torch.bool), self.encoder.grid)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encoder_frozen):
            return self.encoder((images - self.mean) / self.std)

    def remember(self, images: torch.Tensor) -> Memory:
        """images as `encode` takes them -> Memory: the slots a decoder reads or looks at, the image tokens alone."""
        tokens, mask = self.image_tokens(self.encode(images))
        return Memory(tokens, mask, {"image": slice(0, tokens.shape[1])})

    def forward(
        self,
        images: torch.Tensor,
        words: torch.Tensor,
        rows: torch.Tensor,
        own_words: torch.Tensor | None = None,
    ) -> Output:
        """N images and B captions of them -> Output; rows (B,) says which image a caption belongs to.

        An image and its memory are encoded once, however many captions it has. Where own_words (B,T) is True the
        decoder reads a word it draws itself in the place of the caption's (scheduled sampling).
        """
        state = self.decoder.start(self.remember(images))
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
