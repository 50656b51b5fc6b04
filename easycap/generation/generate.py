"""Captions for many images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, islice
from typing import Any, NamedTuple, cast

import torch

from easycap.errors import UserError
from easycap.registry import register
from easycap.types import Batch, CaptionModel, Decoder, Generated, Generator, Inputs, Memory, Vocabulary
from easycap.utils.allocator import trim_if_needed


class Refinement(NamedTuple):
    """How often a caption is fed back as the draft, and how: `with_draft` gives N texts to the inputs of N images."""

    rounds: int
    with_draft: Callable[[Inputs, Sequence[str]], Inputs]


@register("refine", "default")
def refinement_rounds(*, rounds: int) -> int:
    """How often a caption is fed back as the draft; `UserError` for a negative number."""
    if rounds < 0:
        raise UserError(f"refine.rounds={rounds} must be at least 0")
    return rounds


def decode(captioner: CaptionModel, inputs: Inputs, generator: Generator, features: Any = None) -> Generated:
    """Return what `generator` generates for N images; `features` are theirs if they were encoded before."""
    if features is None and getattr(generator, "reads_features", False):
        features = captioner.features_of(inputs)
    return generate(generator, captioner.decoder, captioner.build_memory(inputs, features), features)


def generate(generator: Generator, decoder: Decoder, memory: Memory, features: Any) -> Generated:
    """Return what `generator` generates for a memory; it gets the features of the images if it `reads_features`."""
    if getattr(generator, "reads_features", False):
        return cast(Callable[..., Generated], generator)(decoder, memory, features)
    return generator(decoder, memory)


@torch.no_grad()
def captions_of_batch(
    captioner: CaptionModel,
    inputs: Inputs,
    generator: Generator,
    vocabulary: Vocabulary,
    autocast: Callable[[], AbstractContextManager],
    refinement: Refinement,
) -> list[list[list[str]]]:
    """N images -> for each round, the first included, N lists of the captions that `generator` makes of an image.

    `autocast` makes the context to compute in; it is called once per batch. Raises `UserError` where several captions
    of an image would have to be fed back.
    """
    found = []
    with autocast():
        features = captioner.features_of(inputs)  # once for all rounds
        for _ in range(refinement.rounds):
            found.append(_captions_of(captioner, inputs, features, generator, vocabulary))
            inputs = refinement.with_draft(inputs, [only_caption(texts) for texts in found[-1]])
        found.append(_captions_of(captioner, inputs, features, generator, vocabulary))
    trim_if_needed()
    return found


def _captions_of(
    captioner: CaptionModel,
    inputs: Inputs,
    features: Any,
    generator: Generator,
    vocabulary: Vocabulary,
) -> list[list[str]]:
    words = decode(captioner, inputs, generator, features).words
    texts = [vocabulary.decode(ids) for ids in words.tolist()]
    each = len(texts) // len(inputs.images)
    return [texts[first : first + each] for first in range(0, len(texts), each)]


def caption_batch(
    captioner: CaptionModel,
    inputs: Inputs,
    generator: Generator,
    vocabulary: Vocabulary,
    autocast: Callable[[], AbstractContextManager],
    refinement: Refinement,
) -> list[list[str]]:
    """N images -> N captions per round; `UserError` if the generator makes several of an image."""
    rounds = captions_of_batch(captioner, inputs, generator, vocabulary, autocast, refinement)
    return [[only_caption(texts) for texts in found] for found in rounds]


def only_caption(texts: list[str]) -> str:
    """Return an image's one caption; `UserError` if there are several."""
    if len(texts) != 1:
        raise UserError(
            f"{len(texts)} captions per image were generated where one is needed: set num_samples=1"
        )
    return texts[0]


def captions_of_batches(
    captioner: CaptionModel,
    batches: Iterable[Batch],
    generator: Generator,
    vocabulary: Vocabulary,
    *,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager],
    refinement: Refinement,
) -> list[dict[str, list[str]]]:
    """Return {image id: its captions, one or more} of each round, in eval mode; the captioner's mode is as before
    afterwards.
    """
    was_training = captioner.training
    captioner.eval()
    captions: list[dict[str, list[str]]] = [{} for _ in range(refinement.rounds + 1)]
    batches = iter(batches)
    first = list(islice(batches, 1))
    with _prepared(captioner.decoder, sum(len(batch.image_ids) for batch in first)):
        for batch in chain(first, batches):
            inputs = batch.inputs.to(device)
            found = captions_of_batch(captioner, inputs, generator, vocabulary, autocast, refinement)
            for known, texts in zip(captions, found, strict=True):
                known.update(zip(batch.image_ids, texts, strict=True))
    captioner.train(was_training)
    return captions


def _prepared(decoder: Any, num_images: int) -> AbstractContextManager:
    """The context in which a decoder generates captions of at least so many images, if it has one."""
    return decoder.generating(num_images) if hasattr(decoder, "generating") else nullcontext()
