"""Tags of the image: which of them, how many, in which order, in training and at test time."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import easycap.vocab
from easycap.conditioning.conditions import ConditionData
from easycap.conditioning.tag_predictor import TagPredictions, copy_tag_model, tag_checkpoint
from easycap.config.instantiate import build
from easycap.config.schema import to_plain
from easycap.data.images import ImageFile
from easycap.errors import UserError
from easycap.models.decoders.segments import Placement
from easycap.registry import SharedSettings, register_condition
from easycap.types import ConditionInfo, Example, Stage, TextCondition
from easycap.utils import paths
from easycap.utils.cache import cached_dir, digest_of
from easycap.utils.checksums import saved_dir
from easycap.vocab.tags import FILE, TagSource, TagVocabulary

_SAVED = "tagger"  # the folder in a run's folder with the tag model, or the vocabulary alone


class Order(Enum):
    """How tags follow each other: the surest first (a tag model's likeliest, or what most references name), the more
    frequent in training first, or by the alphabet.
    """

    surest = "surest"
    frequency = "frequency"
    alphabet = "alphabet"


class Tags(TextCondition):
    """At most `count` tags of the image, of which at most `max_length` tokens are read.

    Subclasses define them in `tags_of`. `placement` is where they stand in the memory. Raises `UserError` for
    counts below 1.
    """

    def __init__(
        self, data: ConditionData, *, count: int, order: Order, max_length: int, placement: Placement
    ) -> None:
        for name, value in (("count", count), ("max_length", max_length)):
            if value < 1:
                raise UserError(f"tags.{name}={value} must be at least 1")
        self.data, self.count, self.order, self.max_length = data, count, order, max_length
        self.saved: Path | None = None

    @property
    @abstractmethod
    def vocabulary(self) -> TagVocabulary:
        """The tags that there are."""

    @abstractmethod
    def tags_of(self, example: Example, epoch: int | None) -> list[str]:
        """Return the tags of an example, the surest first; `epoch` None is test time."""

    def own_tags(self, example: Example) -> list[str]:
        """Return the tags that the example's references or its data have."""
        if not example.references:
            raise UserError(
                f"tags={self.describe().source} needs an image's annotations, and {example.id} has none"
            )
        return self.vocabulary.of(example)

    def prepare(self, examples: Sequence[Example], stage: Stage) -> None:
        """Raise `UserError` if no training image has a tag."""
        if stage == "train" and not any(map(self.vocabulary.of, examples)):
            raise UserError(
                f"tags={self.describe().source}: no training image has a tag of this vocabulary, which was "
                f"built with tag_vocab={self.vocabulary.source.name}: use the other tag_vocab, or place COCO's "
                "instances_<split>.json next to its captions"
            )

    def text(self, example: Example, *, epoch: int | None, targets: Sequence[str]) -> str:
        tags = self.tags_of(example, epoch)[: self.count]
        if self.order is Order.frequency:
            tags = self.vocabulary.by_frequency(tags)
        tags = sorted(tags) if self.order is Order.alphabet else tags
        return " ".join(map(self.vocabulary.form_of, tags))

    def load(self, run: Path) -> None:
        self.saved = run / _SAVED

    def __getstate__(self) -> dict[str, Any]:
        # Data loader processes that are not forked need the vocabulary, not the data it is made from.
        state = {key: value for key, value in vars(self).items() if key != "data"}
        return state | {"vocabulary": self.vocabulary}


@register_condition("tags", "oracle")
class OracleTags(Tags):
    """The image's own tags, from its references or its data, at test time too, so that scores are upper bounds."""

    @cached_property
    def vocabulary(self) -> TagVocabulary:
        if self.saved is not None and (self.saved / FILE).is_file():
            return TagVocabulary.load(self.saved)
        return make_tag_vocabulary(self.data.tag_vocab, self.data.splits["train"])

    @property
    def needs_data_tags(self) -> bool:
        return self.data.tag_vocab["name"] == "data"

    def validate(self, config: Mapping[str, Any]) -> None:
        check_tag_vocabulary(config["tag_vocab"])

    def tags_of(self, example: Example, epoch: int | None) -> list[str]:
        return self.own_tags(example)

    def describe(self) -> ConditionInfo:
        return ConditionInfo("oracle", oracle=True, any_image=False)

    def save(self, run: Path) -> None:
        saved_dir(run / _SAVED, self.vocabulary.save)


@dataclass(frozen=True, kw_only=True)
class PredictedTagSettings(SharedSettings):
    """Settings of tags that a tag model, that of `run`, predicts: those of probability `threshold` and more."""

    run: str
    count: int
    threshold: float
    order: Order
    max_length: int
    placement: Placement

    def __post_init__(self) -> None:
        _checked_probability("threshold", self.threshold)


@register_condition("tags", "predicted")
class PredictedTags(Tags):
    """The tags that the tag model of `run` predicts with probability `threshold` and more."""

    def __init__(self, data: ConditionData, *, shared: PredictedTagSettings) -> None:
        super().__init__(
            data,
            count=shared.count,
            order=shared.order,
            max_length=shared.max_length,
            placement=shared.placement,
        )
        self.run, self.threshold = shared.run, shared.threshold

    @cached_property
    def predictions(self) -> TagPredictions:
        checkpoint = tag_checkpoint(self.run, self.saved)
        return TagPredictions(checkpoint, device=self.data.device, workers=self.data.workers)

    @cached_property
    def vocabulary(self) -> TagVocabulary:
        return self.predictions.vocabulary

    @property
    def needs_pixels(self) -> bool:
        return True

    def validate(self, config: Mapping[str, Any]) -> None:
        tag_checkpoint(self.run, self.saved)

    def prepare(self, examples: Sequence[Example], stage: Stage) -> None:
        self.predictions.prepare(examples)

    def tags_of(self, example: Example, epoch: int | None) -> list[str]:
        return self.predicted_tags(example)

    def predicted_tags(self, example: Example) -> list[str]:
        probabilities = self.predictions.probabilities(example)
        order = np.argsort(-probabilities, kind="stable")
        likely = order[: int((probabilities >= self.threshold).sum())]
        return [self.vocabulary.tags[place] for place in likely]

    def describe(self) -> ConditionInfo:
        return ConditionInfo("predicted")

    def save(self, run: Path) -> None:
        saved_dir(run / _SAVED, partial(copy_tag_model, self.predictions.checkpoint))


@register_condition("tags", "mixed")
class MixedTags(PredictedTags):
    """In training the image's own tags, by the rule of the tag model of `run`, with noise; at test time predicted ones.

    Of an image's first `count` own tags each is dropped with probability `drop`; then, as often as it had tags, one of
    the vocabulary is inserted with probability `add`, at any place; with probability `shuffle` all change places. What
    is drawn depends on (seed, epoch, image id) alone.
    """

    def __init__(
        self,
        data: ConditionData,
        *,
        shared: PredictedTagSettings,
        drop: float,
        add: float,
        shuffle: float,
        seed: int,
    ) -> None:
        self.noise = {
            name: _checked_probability(name, value)
            for name, value in (("drop", drop), ("add", add), ("shuffle", shuffle))
        }
        super().__init__(data, shared=shared)
        self.seed = seed

    @property
    def needs_data_tags(self) -> bool:
        return self.vocabulary.source is TagSource.data

    def prepare(self, examples: Sequence[Example], stage: Stage) -> None:
        if stage == "test":
            self.predictions.prepare(examples)
        else:
            Tags.prepare(self, examples, stage)

    def tags_of(self, example: Example, epoch: int | None) -> list[str]:
        if epoch is None:
            return self.predicted_tags(example)
        random = Random(f"tags/{self.seed}/{epoch}/{example.id}")
        return with_noise(
            self.own_tags(example)[: self.count], random, others=self.vocabulary.tags, **self.noise
        )

    def describe(self) -> ConditionInfo:
        return ConditionInfo("mixed")


def with_noise(
    tags: Sequence[str], random: Random, *, others: Sequence[str], drop: float, add: float, shuffle: float
) -> list[str]:
    """Return tags with noise; see `MixedTags`."""
    kept = [tag for tag in tags if random.random() >= drop]
    for _ in tags:
        if random.random() < add and (other := random.choice(others)) not in kept:
            kept.insert(random.randint(0, len(kept)), other)
    if random.random() < shuffle:
        random.shuffle(kept)
    return kept


def make_tag_vocabulary(tag_vocab: Mapping[str, Any], examples: Sequence[Example]) -> TagVocabulary:
    """Return the frequent tags of training images, by the rule of a checked group `tag_vocab`."""
    settings = json.dumps(to_plain(dict(tag_vocab)), sort_keys=True)
    texts = (text for example in examples for text in (*example.references, ",".join(example.tags)))
    code = Path(easycap.vocab.__file__).parent
    folder = paths.cache_dir() / "tags" / digest_of(chain([settings], texts), code=code)
    cached_dir(folder, lambda new: build("tag_vocab", dict(tag_vocab), examples=examples).save(new))
    return TagVocabulary.load(folder)


def check_tag_vocabulary(tag_vocab: Mapping[str, Any]) -> None:
    """Raise `UserError` for settings of a checked group `tag_vocab` that no data could satisfy."""
    enough = [Example("", ImageFile(Path()), ("dog",), ("dog",))] * tag_vocab["min_count"]
    build("tag_vocab", dict(tag_vocab), examples=enough)


def _checked_probability(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise UserError(f"tags.{name}={value} must be a share, from 0 to 1")
    return value
