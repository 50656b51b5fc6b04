"""Where a draft comes from at test time: nowhere, another image, the image's references, the nearest image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from random import Random
from typing import Any

from easycap.conditioning.conditions import ConditionData
from easycap.conditioning.draft import Draft
from easycap.conditioning.neighbours import Neighbours
from easycap.conditioning.prompt import Prompt
from easycap.conditioning.retrieval import (
    check_encoder,
    copy_neighbours,
    encoder_of,
    make_neighbours,
    open_neighbours,
)
from easycap.errors import UserError
from easycap.registry import register_condition
from easycap.types import ConditionInfo, Example, ImageSource, Vocabulary
from easycap.utils.checksums import saved_dir

_NEIGHBOURS = "neighbours"  # the folder in a run's folder


@register_condition("draft", "own")
class OwnDraft(Draft):
    """At test time: nothing at first; each round of refinement reads what the round before generated."""

    def test_text(self, example: Example) -> str:
        return ""

    def describe(self) -> ConditionInfo:
        return ConditionInfo("own")


@register_condition("draft", "noise")
class NoiseDraft(Draft):
    """At test time: a caption of another, training, image; which one depends on the image's id alone."""

    def prepare_test(self, examples: Sequence[Example]) -> None:
        self.data.pack()

    def test_text(self, example: Example) -> str:
        return self.other_caption(example, Random(f"noise/{example.id}"))

    def describe(self) -> ConditionInfo:
        return ConditionInfo("noise", any_image=False)


@register_condition("draft", "oracle")
class OracleDraft(Draft):
    """At test time too: a reference of the image, corrupted as in training, so that scores are upper bounds.

    Which one and how depends on the image's id alone. Raises `UserError` for an image without references.
    """

    tests_references = True

    def prepare_test(self, examples: Sequence[Example]) -> None:
        self.data.pack()

    def test_text(self, example: Example) -> str:
        if not example.references:
            raise UserError(f"draft=oracle corrupts a reference of the image, and {example.id} has none")
        random = Random(f"oracle/{example.id}")
        return self.corrupted(random.choice(example.references), random)

    def describe(self) -> ConditionInfo:
        return ConditionInfo("oracle", oracle=True, any_image=False)


@register_condition("draft", "retrieval")
class RetrievedDraft(Draft):
    """At test time, and for the share `as_tested` in training: a caption of each of `count` nearest training images.

    They are never the image itself. Nearest to the frozen encoder of another `run`, or, without it, to an `encoder` as
    in encoder=OPTION,KEY=VALUE. The captions are joined by `separator`. `prompt` has {captions} in the place of the
    draft, whatever it is, unless it is empty; of a longer draft the last tokens are left out, none of the prompt (Ramos
    et al. 2023, SmallCap; RitaRamo/smallcap at 19cc4f4, src/utils.py). Raises `UserError` for a `count` below 1 and a
    prompt without {captions}.
    """

    def __init__(
        self,
        data: ConditionData,
        *,
        run: str | None,
        encoder: str,
        count: int,
        separator: str,
        prompt: str | None,
        max_length: int,
        training: dict[str, float],
    ) -> None:
        super().__init__(data, max_length=max_length, training=training)
        if count < 1:
            raise UserError(f"draft.count={count} must be at least 1")
        self.run, self.encoder, self.count, self.separator = run, encoder, count, separator
        self.prompt = None if prompt is None else Prompt(prompt)
        self.saved: Path | None = None
        self.found: dict[ImageSource, str] = {}

    @property
    def needs_pixels(self) -> bool:
        return True

    def validate(self, config: Mapping[str, Any]) -> None:
        super().validate(config)
        if self.prompt is not None:
            self.prompt.validate(config)
        if not config["resume"]:
            check_encoder(self.run, self.encoder)

    def prepare_test(self, examples: Sequence[Example]) -> None:
        new = [example for example in examples if example.image not in self.found]
        if new:
            found = (
                self.separator.join(" ".join(text.split()) for text in its) for its in self.neighbours(new)
            )
            self.found.update(zip((example.image for example in new), found, strict=True))

    def test_text(self, example: Example) -> str:
        return self.found[example.image]

    def room(self, vocabulary: Vocabulary) -> int:
        return self.max_length if self.prompt is None else self.prompt.room(vocabulary, self.max_length)

    def encode(self, text: str, vocabulary: Vocabulary) -> list[int]:
        if self.prompt is None or not text:
            return super().encode(text, vocabulary)
        return self.prompt.encode(text, vocabulary, self.max_length)

    def describe(self) -> ConditionInfo:
        return ConditionInfo("retrieval")

    def save(self, run: Path) -> None:
        saved_dir(run / _NEIGHBOURS, partial(copy_neighbours, self._cached_folder))

    def save_for_photos(self, folder: Path) -> None:
        saved_dir(folder / _NEIGHBOURS, partial(copy_neighbours, self._folder))

    def load(self, run: Path) -> None:
        self.saved = run

    @cached_property
    def neighbours(self) -> Neighbours:
        return open_neighbours(self._folder, self.data.device, self.data.workers, count=self.count)

    @property
    def _folder(self) -> Path:
        """The folder with the neighbours: saved in the run's folder; for a new run, made in the cache."""
        folder = self._cached_folder if self.saved is None else self.saved / _NEIGHBOURS
        if not folder.is_dir():
            raise UserError(
                f"{self.saved} has no folder {_NEIGHBOURS}, which draft=retrieval needs: copy it "
                "from where the run was trained"
            )
        return folder

    @cached_property
    def _cached_folder(self) -> Path:
        """The folder in the cache with the features of the training images."""
        encoder = encoder_of(self.run, self.encoder, self.data.device)
        return make_neighbours(encoder, self.data.splits["train"], workers=self.data.workers)

    def __getstate__(self) -> dict[str, Any]:
        # Data loader processes need what was found, not the encoder that found it.
        return {key: value for key, value in vars(self).items() if key != "neighbours"}
