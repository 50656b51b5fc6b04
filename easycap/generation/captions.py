"""Captions for many images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import torch
from torch import nn

from easycap.types import Batch, Generator, Vocabulary


@torch.no_grad()
def caption_batch(
    captioner: nn.Module,
    images: torch.Tensor,
    generator: Generator,
    vocabulary: Vocabulary,
    autocast: Callable[[], AbstractContextManager],
) -> list[str]:
    """images (N,3,H,W) uint8 -> N captions; `autocast` makes the context to compute in, anew for each call."""
    with autocast():
        words = generator(captioner.decoder, captioner.remember(images)).words
    if len(words) != len(images):
        raise ValueError(
            f"{len(words) // len(images)} captions per image were generated where one is needed: set num_samples=1"
        )
    return [vocabulary.decode(ids) for ids in words.tolist()]


def caption_batches(
    captioner: nn.Module,
    batches: Iterable[Batch],
    generator: Generator,
    vocabulary: Vocabulary,
    *,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager],
) -> dict[str, str]:
    """Return {image id: caption}, in eval mode; the captioner's mode is as before afterwards.

    `autocast` makes the context to compute in, anew for each batch.
    """
    was_training = captioner.training
    captioner.eval()
    captions: dict[str, str] = {}
    for batch in batches:
        texts = caption_batch(captioner, batch.images.to(device), generator, vocabulary, autocast)
        captions.update(zip(batch.ids, texts, strict=True))
    captioner.train(was_training)
    return captions
