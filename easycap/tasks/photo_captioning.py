"""Captions of photos that are not of a run's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from PIL import Image

from easycap.conditioning.tags import Tags
from easycap.errors import UserError
from easycap.evaluation.attention_maps import pictures, why_no_attention
from easycap.evaluation.pipeline import Pipeline
from easycap.generation.attention_weights import CaptionDetails, caption_details
from easycap.generation.generate import Refinement, caption_batch, decode
from easycap.tasks.predictor import Prediction, Predictor
from easycap.types import Example, Generator, Inputs
from easycap.utils.cpu_threads import one_thread_for_little

NO_TAGS = "this captioner takes no tags (tags=none): train one with tags, e.g. tags=predicted tags.run=RUN"
NO_DRAFT = (
    "this captioner takes no draft (draft=none), given or fed back: train one with a draft, e.g. draft=own"
)
# How users of a photo's captioner give the text of a condition, on the command line and in Python.
_GIVEN = {
    "draft": ": give one, --draft TEXT or draft=TEXT",
    "tags": ": give them, --tags A,B or tags='A,B'",
}


class CaptionPredictor(Predictor):
    """Captions photos with a captioner's own preprocessing.

    `draft` and `tags` ("dog,cat") are given by the user and take the place of the run's
    own. Raises `UserError` for what the captioner cannot read.
    """

    doing = "captioning"

    def __init__(
        self,
        pipeline: Pipeline,
        config: Mapping[str, Any],
        generator: Generator,
        refinement: Refinement,
        *,
        draft: str | None,
        tags: str | None,
    ) -> None:
        self.pipeline, self.config = pipeline, config
        self.generator, self.refinement = generator, refinement
        self.transform = pipeline.transform
        if draft is not None and "draft" not in pipeline.conditions:
            raise UserError(NO_DRAFT)
        self.given_by_user = {} if draft is None else {"draft": draft}
        if tags is not None:
            self.given_by_user["tags"] = self._checked_tags(tags)
        self._check_conditions()
        self.notices = [notice] if draft and (notice := self._notice_of_draft(draft)) else []

    def _check_conditions(self) -> None:
        """Raise `UserError` if a text condition that is not given has text for images of its data set alone."""
        for name, condition in self.pipeline.conditions.items():
            if name not in self.given_by_user and not condition.describe().any_image:
                remedy = _GIVEN.get(name, "")
                raise UserError(f"{name}={self.config[name]['name']} has no {name} for a photo{remedy}")

    def _notice_of_draft(self, draft: str) -> str | None:
        """Return what the captioner does not get of a draft; None if it gets all of it."""
        vocabulary = self.pipeline.vocabulary
        most = self.pipeline.conditions["draft"].room(vocabulary)
        ids = vocabulary.encode(draft)
        if all(one == vocabulary.unk_id for one in ids[:most]):
            return f"draft {draft!r} has no words in this model's vocabulary; use other words"
        if len(ids) > most:
            return (
                f"the draft is truncated to its first {most} of {len(ids)} tokens "
                f"(draft.max_length={self.pipeline.conditions['draft'].max_length})"
            )
        return None

    def _checked_tags(self, tags: str) -> str:
        """The tags of "dog,bark" as the captioner reads them; `UserError` for what it cannot read."""
        if "tags" not in self.pipeline.conditions:
            raise UserError(NO_TAGS)
        vocabulary, condition = self.pipeline.vocabulary, self.pipeline.conditions["tags"]
        words = [tag.strip() for tag in tags.split(",") if tag.strip()]
        if isinstance(condition, Tags):
            words = [condition.vocabulary.form_of(word) for word in words]
        for tag in words:
            if not (ids := vocabulary.encode(tag)) or vocabulary.unk_id in ids:
                raise UserError(f"tag {tag!r}: not in this model's vocabulary; try a synonym")
        return " ".join(words)

    def __call__(self, examples: Sequence[Example]) -> list[Prediction | UserError]:
        """Return the captions of each image, one per round, or why it could not be read."""
        images, errors = self._read(examples)
        readable = [example for example in examples if example.id in images]
        captions = self._caption(readable, [images[example.id] for example in readable])
        return [errors.get(example.id) or _prediction(captions[example.id]) for example in examples]

    def prepare(self, examples: Sequence[Example], *, ahead: int) -> None:
        """Fold BatchNorm, and time a batch with each number of threads, if `ahead`
        images are worth it.
        """
        model = self.pipeline.model
        model.fold_encoder(ahead)
        if ahead <= len(examples):
            weights = sum(parameter.numel() for parameter in model.parameters())
            one_thread_for_little(weights, images=ahead, device=self.pipeline.device)
            return
        images, _ = self._read(examples)
        readable = [example for example in examples if example.id in images]
        if readable:
            inputs = self._inputs(readable, [images[example.id] for example in readable])
            one_batch = partial(decode, self.pipeline.model, generator=self.generator)
            self.pipeline.choose_threads(one_batch, inputs, ahead=ahead)

    def _read(self, examples: Sequence[Example]) -> tuple[dict[str, Any], dict[str, UserError]]:
        images, errors = dict[str, Any](), dict[str, UserError]()
        for example in examples:
            try:
                images[example.id] = self.transform(example.image)
            except UserError as error:
                errors[example.id] = error
        return images, errors

    def _inputs(self, examples: Sequence[Example], images: Sequence[Any]) -> Inputs:
        given = {name: [text] * len(examples) for name, text in self.given_by_user.items()}
        return self.pipeline.inputs(examples, images, given)

    def _caption(self, examples: Sequence[Example], images: Sequence[Any]) -> dict[str, list[str]]:
        """Return the captions of each image by id, one per round."""
        if not examples:
            return {}
        by_round = caption_batch(
            self.pipeline.model,
            self._inputs(examples, images),
            self.generator,
            self.pipeline.vocabulary,
            self.pipeline.autocast,
            self.refinement,
        )
        rounds = zip(*by_round, strict=True)
        return {example.id: list(captions) for example, captions in zip(examples, rounds, strict=True)}

    def check_attention(self) -> None:
        """Raise `UserError`, saying what to choose, if this captioner's attention cannot be drawn."""
        if why := why_no_attention(self.pipeline, self.config):
            raise UserError(why)

    def draw_attention(self, example: Example, prediction: Prediction) -> Image.Image:
        """Return where the decoder looked for each word of the last round's caption."""
        rounds = _rounds(prediction)
        (picture,) = pictures(self.pipeline, [example], rounds[-1:], given=self._given([prediction]))
        return picture

    def _given(self, predictions: Sequence[Prediction]) -> dict[str, list[str]]:
        """Return the texts of conditions that led to the last caption of each image."""
        given = {name: [text] * len(predictions) for name, text in self.given_by_user.items()}
        rounds = [_rounds(prediction) for prediction in predictions]
        return given | ({"draft": [of[-2] for of in rounds]} if len(rounds[0]) > 1 else {})

    def details(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[CaptionDetails]:
        """Return how likely the decoder finds each caption and where it looks, for tokens and end token."""
        if not examples:
            return []
        vocabulary, most = self.pipeline.vocabulary, self.pipeline.max_length
        captions = [prediction.text for prediction in predictions]
        ids = [[*vocabulary.encode(caption), vocabulary.eos_id][:most] for caption in captions]
        inputs = self.pipeline.inputs(examples, given=self._given(predictions))
        return caption_details(self.pipeline.model, inputs, ids, vocabulary, self.pipeline.autocast)


def _rounds(prediction: Prediction) -> list[str]:
    return prediction.row.get("rounds", [prediction.text])


def _prediction(rounds: Sequence[str]) -> Prediction:
    if len(rounds) == 1:
        return Prediction(list(rounds), {"caption": rounds[0]}, rounds[0])
    lines = [f"  round {number}: {text}" for number, text in enumerate(rounds)]
    return Prediction(lines, {"caption": rounds[-1], "rounds": list(rounds)}, rounds[-1])
