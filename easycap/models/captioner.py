"""Encoder + image tokens + decoder: an image in, logits of words out."""

from __future__ import annotations

import torch
from torch import nn

from easycap.types import Decoder, Encoder, Features, ImageTokens, Memory, Output


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
        """images (N,3,H,W) uint8 -> Features."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encoder_frozen):
            return self.encoder((images - self.mean) / self.std)

    def remember(self, images: torch.Tensor) -> Memory:
        """images (N,3,H,W) uint8 -> Memory: the slots a decoder reads or looks at, here the image tokens alone."""
        tokens, mask = self.image_tokens(self.encode(images))
        return Memory(tokens, mask, {"image": slice(0, tokens.shape[1])})

    def forward(self, images: torch.Tensor, words: torch.Tensor, rows: torch.Tensor) -> Output:
        """N images and B captions of them -> Output; rows (B,) says which image a caption belongs to.

        An image and its memory are encoded once, however many captions it has.
        """
        return self.decoder(words, self.decoder.start(self.remember(images)).select(rows))
