"""Captions for many images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import torch
from torch import nn

from easycap.types import Batch, Generator, Inputs, Vocabulary


@torch.no_grad()
def captions_of_batch(
    captioner: nn.Module,
    inputs: Inputs,
    generator: Generator,
    vocabulary: Vocabulary,
    autocast: Callable[[], AbstractContextManager],
) -> list[list[str]]:
    """N images -> N lists of the captions that `generator` makes of an image, one or more.

    `autocast` makes the context to compute in, anew for each call.
    """
    with autocast():
        words = generator(captioner.decoder, captioner.remember(inputs)).words
    texts = [vocabulary.decode(ids) for ids in words.tolist()]
    each = len(texts) // len(inputs.images)
    return [texts[first : first + each] for first in range(0, len(texts), each)]


def caption_batch(
    captioner: nn.Module,
    inputs: Inputs,
    generator: Generator,
    vocabulary: Vocabulary,
    autocast: Callable[[], AbstractContextManager],
) -> list[str]:
    """N images -> N captions; `ValueError` if the generator makes several of an image."""
    return [_only(texts) for texts in captions_of_batch(captioner, inputs, generator, vocabulary, autocast)]


def _only(texts: list[str]) -> str:
    if len(texts) != 1:
        raise ValueError(
            f"{len(texts)} captions per image were generated where one is needed: set num_samples=1"
        )
    return texts[0]


def captions_of_batches(
    captioner: nn.Module,
    batches: Iterable[Batch],
    generator: Generator,
    vocabulary: Vocabulary,
    *,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager],
) -> dict[str, list[str]]:
    """Return {image id: its captions, one or more}, in eval mode; the captioner's mode is as before afterwards."""
    was_training = captioner.training
    captioner.eval()
    captions: dict[str, list[str]] = {}
    for batch in batches:
        texts = captions_of_batch(captioner, batch.inputs.to(device), generator, vocabulary, autocast)
        captions.update(zip(batch.ids, texts, strict=True))
    captioner.train(was_training)
    return captions


def caption_batches(
    captioner: nn.Module,
    batches: Iterable[Batch],
    generator: Generator,
    vocabulary: Vocabulary,
    *,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager],
) -> dict[str, str]:
    """Return {image id: caption} as `captions_of_batches` does; `ValueError` if the generator makes several."""
    captions = captions_of_batches(
        captioner, batches, generator, vocabulary, device=device, autocast=autocast
    )
    return {image_id: _only(texts) for image_id, texts in captions.items()}
