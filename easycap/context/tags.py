"""Tags beside an image: which of them, how many, in which order, in training and in testing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from random import Random
from typing import Protocol

import numpy as np

from easycap.registry import register
from easycap.types import Example
from easycap.vocab.tags import TagVocabulary


class Order(Enum):
    """How tags follow each other: the surest first (a tag model's likeliest, or what most references name), the more
    frequent in training first, or by the alphabet."""

    surest = "surest"
    frequency = "frequency"
    alphabet = "alphabet"


class Placement(Enum):
    """Where the tags stand in the memory; only decoders that read it slot by slot can tell."""

    before_image = "before_image"
    after_image = "after_image"


class TagData(Protocol):
    """Where tags come from: the vocabulary, and what a tag model says of images."""

    vocabulary: TagVocabulary

    def prepare(self, examples: Sequence[Example]) -> None:
        """Called with a split's examples before their probabilities are asked for."""

    def probabilities(self, example: Example) -> np.ndarray:
        """Return the probability of each tag (tags,)."""


class Tags:
    """At most `count` tags beside an image, and at most `max_words` of their words.

    `tested` and `trained` (with the epoch) return an image's tags, the surest first. Raises `ValueError` for counts
    below 1.
    """

    def __init__(
        self,
        data: TagData,
        *,
        tested: Callable[[Example], list[str]],
        trained: Callable[[Example, int], list[str]],
        signature: str,
        count: int,
        order: Order,
        max_words: int,
        predicts: tuple[bool, bool] = (False, False),
    ) -> None:
        for name, value in (("count", count), ("max_words", max_words)):
            if value < 1:
                raise ValueError(f"tags.{name}={value} must be at least 1")
        self.data, self.tested, self.trained = data, tested, trained
        self.signature, self.count, self.order, self.max_words = signature, count, order, max_words
        self.predicts_in_training, self.predicts_in_testing = predicts

    def prepare(self, examples: Sequence[Example], *, training: bool) -> None:
        if self.predicts_in_training if training else self.predicts_in_testing:
            self.data.prepare(examples)
        if training and not self.predicts_in_training and not any(map(self.data.vocabulary.of, examples)):
            raise ValueError(
                f"tags={self.signature}: no training image has a tag of the vocabulary, whose tags come from "
                f"tag_vocab={self.data.vocabulary.source.name}: take tags of the other tag_vocab, or put COCO's "
                "instances_<split>.json beside its captions"
            )

    def __call__(self, example: Example, *, epoch: int | None, said: Sequence[str]) -> str:
        tags = self.tested(example) if epoch is None else self.trained(example, epoch)
        tags = tags[: self.count]
        if self.order is Order.frequency:
            tags = self.data.vocabulary.by_frequency(tags)
        tags = sorted(tags) if self.order is Order.alphabet else tags
        return " ".join(map(self.data.vocabulary.said, tags))


@register("tags", "oracle")
def oracle(*, count: int, order: Order, max_words: int, placement: Placement, tag_data: TagData) -> Tags:
    """The image's own tags, from its references or its data, in testing too: an upper bound, no captioner's score."""
    own = partial(_own, tag_data, "oracle")
    return Tags(
        tag_data,
        tested=own,
        trained=lambda example, epoch: own(example),
        signature="oracle",
        count=count,
        order=order,
        max_words=max_words,
    )


@register("tags", "predicted")
def predicted(
    *,
    run: str,
    count: int,
    threshold: float,
    order: Order,
    max_words: int,
    placement: Placement,
    tag_data: TagData,
) -> Tags:
    """What the tag model of `run` says, tags of probability `threshold` and more, in training and in testing."""
    likely = partial(_likely, tag_data, check_share("threshold", threshold))
    return Tags(
        tag_data,
        tested=likely,
        trained=lambda example, epoch: likely(example),
        signature="predicted",
        count=count,
        order=order,
        max_words=max_words,
        predicts=(True, True),
    )


@register("tags", "mixed")
def mixed(
    *,
    run: str,
    count: int,
    threshold: float,
    order: Order,
    max_words: int,
    placement: Placement,
    drop: float,
    add: float,
    shuffle: float,
    seed: int,
    tag_data: TagData,
) -> Tags:
    """In training the image's own tags, by the rule of the tag model of `run`, with noise; in testing what it says.

    Of an image's first `count` own tags each goes with probability `drop`; then, as often as it had tags, one of the
    vocabulary comes in with probability `add`, at any place; with probability `shuffle` all change places. What is
    drawn depends on (seed, epoch, image id) alone.
    """
    shares = {
        name: check_share(name, value) for name, value in (("drop", drop), ("add", add), ("shuffle", shuffle))
    }
    own = partial(_own, tag_data, "mixed")

    def trained(example: Example, epoch: int) -> list[str]:
        random = Random(f"tags/{seed}/{epoch}/{example.id}")
        return noisy(own(example)[:count], random, others=tag_data.vocabulary.tags, **shares)

    return Tags(
        tag_data,
        tested=partial(_likely, tag_data, check_share("threshold", threshold)),
        trained=trained,
        signature="mixed",
        count=count,
        order=order,
        max_words=max_words,
        predicts=(False, True),
    )


def noisy(
    tags: Sequence[str], random: Random, *, others: Sequence[str], drop: float, add: float, shuffle: float
) -> list[str]:
    """Return tags with noise; see `mixed`."""
    kept = [tag for tag in tags if random.random() >= drop]
    for _ in tags:
        if random.random() < add and (other := random.choice(others)) not in kept:
            kept.insert(random.randint(0, len(kept)), other)
    if random.random() < shuffle:
        random.shuffle(kept)
    return kept


def check_share(name: str, value: float) -> float:
    """Return a setting of `tags`; `ValueError` unless it is a share."""
    if not 0 <= value <= 1:
        raise ValueError(f"tags.{name}={value} must be a share, from 0 to 1")
    return value


def _own(data: TagData, kind: str, example: Example) -> list[str]:
    if not example.references:
        raise ValueError(
            f"tags={kind} takes what is known of an image, and of {example.id} nothing is: give tags by --tags"
        )
    return data.vocabulary.of(example)


def _likely(data: TagData, threshold: float, example: Example) -> list[str]:
    probabilities = data.probabilities(example)
    order = np.argsort(-probabilities, kind="stable")
    return [data.vocabulary.tags[place] for place in order[: int((probabilities >= threshold).sum())]]
