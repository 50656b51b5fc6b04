"""Drafts of a caption, which the captioner corrects by looking at the image: what all of them are in training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from easycap.conditioning.conditions import ConditionData
from easycap.errors import UserError
from easycap.metrics.tokenizer import tokenize
from easycap.registry import describe_choices
from easycap.types import Example, Stage, TextCondition

_OF_IMAGES = ("another", "nothing", "as_tested")
_OF_WORDS = ("drop", "replace", "swap")


@dataclass(frozen=True)
class Corruption:
    """Corrupts a text word by word: drop each word with probability `drop`, then replace each remaining word with
    probability `replace` by what `other_word` draws, then, from left to right, swap a word with the next one with
    probability `swap`; a swapped pair is passed over. A text never gets longer. Raises `UserError` for values that
    are not probabilities.
    """

    drop: float
    replace: float
    swap: float
    other_word: Callable[[Random], str]

    def __post_init__(self) -> None:
        for name in _OF_WORDS:
            _check_probability(name, getattr(self, name))

    def __call__(self, text: str, random: Random) -> str:
        kept = [word for word in text.split() if random.random() >= self.drop]
        words = [self.other_word(random) if random.random() < self.replace else word for word in kept]
        place = 0
        while place + 1 < len(words):
            if random.random() < self.swap:
                words[place : place + 2] = words[place + 1], words[place]
                place += 1
            place += 1
        return " ".join(words)


class Draft(TextCondition):
    """A draft of at most `max_length` tokens; subclasses define in `test_text` what it is at test time.

    `training` has the shares of images and epochs in which the training draft is `another` training image's caption,
    `nothing`, or the draft of test time (`as_tested`). Otherwise it is a corrupted reference of the image that is not
    among the targets: see `Corruption` for `drop`, `replace` and `swap`. If all references are targets, it is another
    image's caption instead. What is drawn depends on (seed, epoch, image id) alone.

    Raises `UserError` for values that are not probabilities.
    """

    # Whether the draft of test time is itself a corrupted reference. It could be a target, so that the share
    # `as_tested` is of references that are not targets, too.
    tests_references = False

    def __init__(self, data: ConditionData, *, max_length: int, training: dict[str, float]) -> None:
        _check(max_length, training)
        self.data, self.max_length = data, max_length
        self.another, self.nothing, self.as_tested = (training[name] for name in _OF_IMAGES)
        if self.tests_references:
            self.as_tested = 0.0
        self.from_references = 1 - self.another - self.nothing - self.as_tested > 1e-9
        self.corruption = Corruption(**{name: training[name] for name in _OF_WORDS}, other_word=self._word)

    @abstractmethod
    def test_text(self, example: Example) -> str:
        """Return the draft of an example at test time."""

    def prepare_test(self, examples: Sequence[Example]) -> None:
        """Do what `test_text` of these examples needs; see `prepare`."""

    def validate(self, config: Mapping[str, Any]) -> None:
        if not self.from_references:
            return
        if config["trainer"]["captions_per_image"] is None:
            raise UserError(
                "trainer.captions_per_image=null makes all references of an image targets and leaves none for its "
                "draft: set e.g. trainer.captions_per_image=3"
            )
        if config["objective"]["name"] == "scst":
            # The reward would be earned by copying the draft.
            shares = _OF_IMAGES[:2] if self.tests_references else _OF_IMAGES
            raise UserError(
                "objective=scst rewards similarity to an image's references, and training drafts of "
                f"draft={config['draft']['name']} are among them: let draft.training.{', '.join(shares[:-1])} and "
                f"{shares[-1]} sum to 1"
            )

    def prepare(self, examples: Sequence[Example], stage: Stage) -> None:
        if stage == "train":
            self.data.pack()
            if self.from_references:
                self._check_references(examples)
        if stage == "test" or self.as_tested:
            self.prepare_test(examples)

    def text(self, example: Example, *, epoch: int | None, targets: Sequence[str]) -> str:
        if epoch is None:
            return self.test_text(example)
        random = Random(f"draft/{self.data.seed}/{epoch}/{example.id}")
        drawn = random.random()
        if drawn < self.nothing:
            return ""
        if drawn < self.nothing + self.as_tested:
            return self.test_text(example)
        target_words = [tokenize(text) for text in targets]
        others = [text for text in example.references if tokenize(text) not in target_words]
        if drawn < self.nothing + self.as_tested + self.another or not others:
            return self.other_caption(example, random)
        return self.corrupted(random.choice(others), random)

    def corrupted(self, text: str, random: Random) -> str:
        """Return a caption corrupted word by word."""
        words = self.corruption(" ".join(self.data.words_of(text)), random)
        return self.data.text_of(words.split())

    def other_caption(self, example: Example, random: Random) -> str:
        """Return a reference of another training image; `UserError` if there is no other."""
        if all(one.id == example.id for one in self.data.train):
            raise UserError(
                "a draft from another training image needs at least two training images; there is only one"
            )
        other = random.choice(self.data.train)
        while other.id == example.id:
            other = random.choice(self.data.train)
        return random.choice(other.references)

    def _word(self, random: Random) -> str:
        """Return a word of the training captions, frequent ones more often."""
        words = self.data.words_of(random.choice(random.choice(self.data.train).references))
        return random.choice(words) if words else ""

    def _check_references(self, examples: Sequence[Example]) -> None:
        """Raise `UserError` if every reference of every image is a target."""
        targets = self.data.captions_per_image
        if targets is None or all(_distinct_references(example) <= targets for example in examples):
            most = max(map(_distinct_references, examples))
            raise UserError(
                f"trainer.captions_per_image={targets} makes all references of every training image ({most} at most) "
                "targets and leaves none for its draft: lower it, or set draft.training.another=1"
            )


def _distinct_references(example: Example) -> int:
    return len({tuple(tokenize(text)) for text in example.references})


def _check(max_length: int, training: Mapping[str, float]) -> None:
    if max_length < 1:
        raise UserError(f"draft.max_length={max_length} must be at least 1")
    allowed = (*_OF_IMAGES, *_OF_WORDS)
    for name in (*training, *allowed):
        if name not in allowed:
            raise UserError(f"draft.training.{name} does not exist; {describe_choices(name, allowed)}")
        if name not in training:
            raise UserError(f"draft.training.{name} has no value; set it, e.g. draft.training.{name}=0")
        _check_probability(name, training[name])
    if sum(training[name] for name in _OF_IMAGES) > 1 + 1e-9:
        shares = ", ".join(f"{name}={training[name]:g}" for name in _OF_IMAGES)
        raise UserError(f"draft.training: {shares} are shares of the same images: they must sum to at most 1")


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"draft.training.{name}={value} must be a share, from 0 to 1")
