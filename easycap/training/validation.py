"""Validation while a model trains: its loss, its captions, their scores, and signs of a bad run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch

from easycap.data.loader import Batches, show_images
from easycap.errors import UserError
from easycap.models.image_model import ImageModel
from easycap.registry import describe_choices, register
from easycap.training.distributed import Ranks
from easycap.training.train_state import TrainState
from easycap.types import Batch, Example, Objective
from easycap.utils.allocator import trim_if_needed

logger = logging.getLogger(__name__)

# Below this gain in loss (nats per word) from seeing the right image the decoder ignores the image.
_IMAGE_MATTERS = 0.01
# Judged after so many steps, or sooner if the loss is above this share of the best validation's.
_FEW_STEPS, _FALLS = 300, 0.98
# A rise of this share of captions that end in "a", "with", "the" is significant on a few hundred images.
_MORE_BAD_ENDINGS = 0.02


@dataclass(frozen=True)
class Validation:
    """values: {"loss": ..., "CIDEr-D": ...}; captions {id: text} of the same images, in their order."""

    values: dict[str, float]
    captions: dict[str, str]


@register("validation", "default")
@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """On what and how often to validate: the first `images` images (null: all), every `every_epochs` epochs and after
    the last.

    `metric` (higher is better; null: the task's own) picks the best checkpoint; `samples` images are logged with what
    the model generates for them.
    """

    images: int | None
    batch_size: int
    every_epochs: int
    samples: int
    metric: str | None

    def __post_init__(self) -> None:
        for name in ("batch_size", "every_epochs"):
            if getattr(self, name) < 1:
                raise UserError(f"validation.{name}={getattr(self, name)} must be at least 1")
        if self.images is not None and self.images < 1:
            raise UserError(
                f"validation.images={self.images} must be at least 1, or null for all images of the split"
            )
        if self.samples < 0:
            raise UserError(f"validation.samples={self.samples} must be 0 or more")


class Validator:
    """Measures a model's loss, and scores what it generates for images.

    `make_batches` turns examples and a batch size into batches. `objective` gives the loss. `predict` turns batches
    into {image id: prediction}, `score` examples and their predictions into scores and signs of health, `as_text` a
    prediction into text. `doing` names this work in progress bars. Several `ranks` share the batches.
    """

    def __init__(
        self,
        settings: ValidationConfig,
        *,
        examples: Sequence[Example],
        make_batches: Callable[[Sequence[Example], int], Batches],
        model: ImageModel,
        objective: Objective,
        pad_id: int,
        predict: Callable[[Iterable[Batch]], dict[str, Any]],
        score: Callable[[Sequence[Example], dict[str, Any]], tuple[dict[str, float], dict[str, float]]],
        as_text: Callable[[Any], str],
        default_metric: str,
        doing: str,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager],
        ranks: Ranks,
    ) -> None:
        self.settings = settings
        self.examples = examples[: settings.images]
        self.batches = make_batches(ranks.shard(self.examples, settings.batch_size), settings.batch_size)
        self.model, self.objective, self.pad_id = model, objective, pad_id
        self.predict, self.score, self.as_text, self.doing = predict, score, as_text, doing
        self.metric = settings.metric or default_metric
        self.device, self.autocast, self.ranks = device, autocast, ranks

    def is_due(self, epoch: int, *, last: bool) -> bool:
        """Whether to validate after this epoch (from 0); always after the last one."""
        return last or (epoch + 1) % self.settings.every_epochs == 0

    def sanity_check(self) -> None:
        """Two batches through everything validation does, so that it cannot fail after hours of training.

        It leaves the random numbers of training as they are.
        """
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            batches = list(islice(self.batches, 2))
            self._loss(batches)
            _, found, _ = self._scored_captions(batches)
        if self.metric not in found:
            raise UserError(
                f"validation.metric={self.metric!r} is not measured; {describe_choices(self.metric, found)}"
            )

    def __call__(self) -> Validation:
        """Return the loss, scores and health of the validation images, and what the model generates for them."""
        loss, shuffled = self._loss(self.batches)
        captions, scores, health = self._scored_captions(self.batches)
        return Validation({"loss": loss, "loss_of_shuffled_images": shuffled, **scores, **health}, captions)

    def _scored_captions(
        self, batches: Sequence[Batch] | Batches
    ) -> tuple[dict[str, str], dict[str, float], dict[str, float]]:
        """What the model generates for the images of all ranks, as text, its scores and its health."""
        own = self.predict(self._shown(batches, f"{self.doing} for validation"))
        found = self.ranks.all_gather_dict(own)
        examples = [example for example in self.examples if example.id in found]
        predictions = {example.id: found[example.id] for example in examples}
        scores, health = self.ranks.broadcast(
            self.score(examples, predictions) if self.ranks.is_main else None
        )
        return {image_id: self.as_text(one) for image_id, one in predictions.items()}, scores, health

    def sample_rows(self, validation: Validation) -> list[dict]:
        """Return the first few images with their caption and references, as a Tracker takes them."""
        return [
            {
                "id": example.id,
                "image": example.image,
                "caption": validation.captions[example.id],
                "references": list(example.references),
            }
            for example in self.examples[: self.settings.samples]
        ]

    def _shown(self, batches: Sequence[Batch] | Batches, what: str) -> Iterator[Batch]:
        """The batches, with progress in images."""
        return show_images(batches, what, shown=self.ranks.is_main)

    @torch.inference_mode()
    def _loss(self, batches: Sequence[Batch] | Batches) -> tuple[float, float]:
        """Mean loss per word over `batches`, and what it would be with images given to the wrong captions.

        Of the latter, the first batch shows how much is added to its own loss.
        """
        was_training = self.model.training
        self.model.eval()
        total = words = 0.0
        added = float("nan")
        for number, batch in enumerate(self._shown(batches, "validation loss")):
            count = int((batch.targets != self.pad_id).sum())
            batch = batch.to(self.device)
            with self.autocast():
                loss = float(self.objective(self.model, batch)[0])
            total += loss * count
            if number == 0:
                # Outside autocast, which on a CPU cannot roll cached features in half precision.
                batch.inputs = replace(batch.inputs, images=batch.inputs.images.roll(1, dims=0))
                with self.autocast():
                    added = float(self.objective(self.model, batch)[0]) - loss
            words += count
            trim_if_needed()
        self.model.train(was_training)
        sums = self.ranks.all_reduce_sum({"loss": total, "words": words})
        mean = sums["loss"] / sums["words"]
        return mean, mean + self.ranks.broadcast(added)


def warnings_of(validation: Validation, state: TrainState, metric: str) -> dict[str, str]:
    """Return what is suspicious about a validation, {kind: sentence}; `state` is how far training was before it."""
    found = {}
    values, images, first = validation.values, len(validation.captions), state.stage_start_metrics
    share = values.get("most_frequent_caption", 0.0)
    if images > 1 and share > 0.5:
        found["same caption"] = f"{share:.0%} of the validation images get the same caption"
    gain = values["loss_of_shuffled_images"] - values["loss"]
    if images > 1 and gain < _IMAGE_MATTERS and not _still_learns(state, values["loss"]):
        found["image ignored"] = (
            f"the loss is nearly the same with the wrong images ({values['loss_of_shuffled_images']:.3f} against "
            f"{values['loss']:.3f}): the decoder ignores the image"
        )
    before, now = (some.get("bad_endings", 0.0) for some in (first, values))
    if values[metric] > first[metric] and now > before + _MORE_BAD_ENDINGS:
        found["bad endings"] = (
            f"{metric} rose from {100 * first[metric]:.1f} to {100 * values[metric]:.1f} while captions with a bad "
            f"ending (a dog on a) went from {before:.1%} to {now:.1%}: it does not penalise captions that "
            "break off"
        )
    return found


def _still_learns(state: TrainState, loss: float) -> bool:
    """Whether it is too early to judge: few steps so far, and the loss falls quickly. Words are learned first."""
    before = state.best_metrics.get("loss")
    return state.step < _FEW_STEPS and (before is None or loss < _FALLS * before)
