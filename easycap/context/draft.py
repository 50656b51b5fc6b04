"""Drafts of a caption, to be mended by looking at the image: what all of them are in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from easycap.context.damage import Damage, check_share
from easycap.data.loader import PackedExamples
from easycap.metrics.tokenizer import tokenize
from easycap.registry import describe_choices
from easycap.types import Example

_OF_IMAGES = ("another", "nothing", "as_tested")
_OF_WORDS = ("drop", "replace", "swap")


class DraftData:
    """Where drafts get captions and words from: `read` returns {split: examples}; training says `captions_per_image`
    (None: all) of their references, and draws by `seed`. `kept` is the folder where a trained run kept what another
    run said, if there is one."""

    def __init__(
        self,
        read: Callable[[], Mapping[str, Sequence[Example]]],
        *,
        captions_per_image: int | None,
        seed: int,
        kept: Path | None = None,
    ) -> None:
        self.read, self.captions_per_image, self.seed, self.kept = read, captions_per_image, seed, kept

    @cached_property
    def splits(self) -> Mapping[str, Sequence[Example]]:
        return self.read()

    @cached_property
    def examples(self) -> Sequence[Example]:
        """The training examples, for processes that load images to share."""
        return PackedExamples(self.splits["train"])

    def pack(self, tested: Sequence[Example] = ()) -> None:
        """Make `examples` here, before processes are forked that would each make their own."""
        assert len(self.examples)

    def __getstate__(self) -> dict[str, Any]:
        # Where such processes are not forked they get the training examples, and not what reads all of them.
        return {"examples": self.examples, "captions_per_image": self.captions_per_image, "seed": self.seed}

    def caption(self, example: Example, random: Random) -> str:
        """Return some reference of some other training image; `ValueError` if there is no other."""
        if all(one.id == example.id for one in self.examples):
            raise ValueError(
                "a draft from another training image needs two training images, and there is one"
            )
        other = random.choice(self.examples)
        while other.id == example.id:
            other = random.choice(self.examples)
        return random.choice(other.references)

    def word(self, random: Random) -> str:
        """Return a word of the training captions, frequent ones more often."""
        words = random.choice(random.choice(self.examples).references).split()
        return random.choice(words) if words else ""


class Draft:
    """At most `max_words` words of a draft beside an image; `tested` says which a user could have in testing.

    In training, `training` has the shares of images and epochs in which the draft is `another` training image's
    caption, `nothing`, or the one that it would be in testing (`as_tested`). Otherwise it is a reference of the image
    of other words than those it is to say now, damaged: see Damage for `drop`, `replace` and `swap`. Of an image whose
    references are all said it is another image's caption too. What is drawn depends on (seed, epoch, image id) alone.
    Where the tested draft is itself a damaged reference (`tested_is_reference`), which could be the one to say, the
    share `as_tested` is such a one of those not said too.
    `prepare` is called with examples before their tested drafts are asked for. `of_photos` says whether there are any
    of photos that are not among the data, without reading the data.

    Raises `ValueError` for shares that are none, and where all references of every image are said.
    """

    def __init__(
        self,
        tested: Callable[[Example], str],
        *,
        signature: str,
        max_words: int,
        training: dict[str, float],
        draft_data: DraftData,
        prepare: Callable[[Sequence[Example]], None] | None = None,
        tested_is_reference: bool = False,
        of_photos: bool = True,
    ) -> None:
        _check(max_words, training)
        self.another, self.nothing, self.as_tested = (training[name] for name in _OF_IMAGES)
        if tested_is_reference:
            self.as_tested = 0.0
        self.from_references = 1 - self.another - self.nothing - self.as_tested > 1e-9
        if self.from_references and draft_data.captions_per_image is None:
            raise ValueError(
                "trainer.captions_per_image=null says all references of an image and leaves none for its draft: set "
                "e.g. trainer.captions_per_image=3"
            )
        self.tested, self.prepare_tested, self.of_photos = tested, prepare, of_photos
        self.signature, self.max_words, self.data = signature, max_words, draft_data
        self.damage = damage_of(training, draft_data)

    def prepare(self, examples: Sequence[Example], *, training: bool) -> None:
        said = self.data.captions_per_image
        if training:
            self.data.pack()
        if training and self.from_references:
            if all(_different(example) <= said for example in examples):
                most = max(map(_different, examples))
                raise ValueError(
                    f"trainer.captions_per_image={said} says all references of every training image ({most} at most) "
                    "and leaves none for its draft: lower it, or set draft.training.another=1"
                )
        if self.prepare_tested is not None and (self.as_tested or not training):
            self.prepare_tested(examples)

    def __call__(self, example: Example, *, epoch: int | None, said: Sequence[str]) -> str:
        if epoch is None:
            return self.tested(example)
        random = Random(f"draft/{self.data.seed}/{epoch}/{example.id}")
        drawn = random.random()
        if drawn < self.nothing:
            return ""
        if drawn < self.nothing + self.as_tested:
            return self.tested(example)
        words_said = [tokenize(text) for text in said]
        unsaid = [text for text in example.references if tokenize(text) not in words_said]
        if drawn < self.nothing + self.as_tested + self.another or not unsaid:
            return self.data.caption(example, random)
        return self.damage(random.choice(unsaid), random)


def _different(example: Example) -> int:
    return len({tuple(tokenize(text)) for text in example.references})


def damage_of(training: Mapping[str, float], data: DraftData) -> Damage:
    """Return the damage of the shares of words in `training`."""
    return Damage(**{name: training[name] for name in _OF_WORDS}, other_word=data.word)


def _check(max_words: int, training: Mapping[str, float]) -> None:
    if max_words < 1:
        raise ValueError(f"draft.max_words={max_words} must be at least 1")
    allowed = (*_OF_IMAGES, *_OF_WORDS)
    for name in (*training, *allowed):
        if name not in allowed:
            raise ValueError(f"draft.training.{name} does not exist; {describe_choices(name, allowed)}")
        if name not in training:
            raise ValueError(f"draft.training.{name} has no value; set it, e.g. draft.training.{name}=0")
        check_share(name, training[name])
    if sum(training[name] for name in _OF_IMAGES) > 1 + 1e-9:
        shares = ", ".join(f"{name}={training[name]:g}" for name in _OF_IMAGES)
        raise ValueError(f"draft.training: {shares} are shares of the same images: lower them to 1 together")
