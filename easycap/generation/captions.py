"""Captions for many images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from easycap.types import Batch, Features, Generator, Inputs, Vocabulary


class Refinement(NamedTuple):
    """How often a caption is fed back as the draft, and how: `as_draft` turns N texts into ids (N,M)."""

    rounds: int
    as_draft: Callable[[Sequence[str]], torch.Tensor]


@torch.no_grad()
def captions_of_batch(
    captioner: nn.Module,
    inputs: Inputs,
    generator: Generator,
    vocabulary: Vocabulary,
    autocast: Callable[[], AbstractContextManager],
    refinement: Refinement,
) -> list[list[list[str]]]:
    """N images -> for each round, the first included, N lists of the captions that `generator` makes of an image.

    `autocast` makes the context to compute in, anew for each call. Raises `ValueError` where several captions of an
    image would have to be fed back.
    """
    found = []
    with autocast():
        features = captioner.encode(inputs.images)  # once for all rounds
        for _ in range(refinement.rounds):
            found.append(_said(captioner, inputs, features, generator, vocabulary))
            draft = refinement.as_draft([_only(texts) for texts in found[-1]])
            inputs = replace(inputs, context=inputs.context | {"draft": draft.to(inputs.images.device)})
        found.append(_said(captioner, inputs, features, generator, vocabulary))
    return found


def _said(
    captioner: nn.Module,
    inputs: Inputs,
    features: Features,
    generator: Generator,
    vocabulary: Vocabulary,
) -> list[list[str]]:
    words = generator(captioner.decoder, captioner.remember(inputs, features)).words
    texts = [vocabulary.decode(ids) for ids in words.tolist()]
    each = len(texts) // len(inputs.images)
    return [texts[first : first + each] for first in range(0, len(texts), each)]


def caption_batch(
    captioner: nn.Module,
    inputs: Inputs,
    generator: Generator,
    vocabulary: Vocabulary,
    autocast: Callable[[], AbstractContextManager],
    refinement: Refinement,
) -> list[list[str]]:
    """N images -> N captions per round; `ValueError` if the generator makes several of an image."""
    rounds = captions_of_batch(captioner, inputs, generator, vocabulary, autocast, refinement)
    return [[_only(texts) for texts in found] for found in rounds]


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
    refinement: Refinement,
) -> list[dict[str, list[str]]]:
    """Return {image id: its captions, one or more} of each round, in eval mode; the captioner's mode is as before
    afterwards."""
    was_training = captioner.training
    captioner.eval()
    captions: list[dict[str, list[str]]] = [{} for _ in range(refinement.rounds + 1)]
    for batch in batches:
        inputs = batch.inputs.to(device)
        found = captions_of_batch(captioner, inputs, generator, vocabulary, autocast, refinement)
        for known, texts in zip(captions, found, strict=True):
            known.update(zip(batch.ids, texts, strict=True))
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
    refinement: Refinement,
) -> dict[str, str]:
    """Return {image id: caption} as the last round of `captions_of_batches` has them; `ValueError` if the generator
    makes several."""
    rounds = captions_of_batches(
        captioner, batches, generator, vocabulary, device=device, autocast=autocast, refinement=refinement
    )
    return {image_id: _only(texts) for image_id, texts in rounds[-1].items()}
