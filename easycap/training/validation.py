"""Looking at a model while it trains: its loss, its captions, their scores, and signs of a bad run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import nn

from easycap.data.loader import Batches
from easycap.generation.captions import Refinement, caption_batches
from easycap.registry import describe_choices, register
from easycap.training.ranks import Ranks
from easycap.types import Batch, Example, Generator, Objective, Vocabulary

logger = logging.getLogger(__name__)

# Below this gain in loss (nats per word) from seeing the right image the decoder ignores the image.
_IMAGE_MATTERS = 0.01
# A rise of this share of captions that end in "a", "with", "the" is no chance on some hundred images.
_MORE_BAD_ENDINGS = 0.02


@dataclass(frozen=True)
class Validation:
    """values: {"loss": ..., "CIDEr-D": ...}; captions {id: text} of the same images, in their order."""

    values: dict[str, float]
    captions: dict[str, str]


@register("validation", "default")
class Validator:
    """Validates on the first `images` images (null: all), every `every_epochs` epochs and after the last.

    `objective` gives the loss; `score` takes examples and the generated {id: caption} and returns scores, of which
    `metric` (higher is better) picks the best checkpoint, and signs of health; `samples` images are logged with their
    captions. `metric` None is CIDEr-D. Captions are those of the last round of `refinement`; the loss is that of
    references beside the draft of the first. `make_batches` turns examples and `batch_size` into batches. Several
    `ranks` share the batches.
    """

    usual_metric = "CIDEr-D"

    def __init__(
        self,
        *,
        images: int | None,
        batch_size: int,
        every_epochs: int,
        samples: int,
        metric: str | None,
        examples: Sequence[Example],
        make_batches: Callable[[Sequence[Example], int], Batches],
        objective: Objective,
        generator: Generator,
        refinement: Refinement,
        vocabulary: Vocabulary,
        score: Callable[[Sequence[Example], dict[str, str]], tuple[dict[str, float], dict[str, float]]],
        ranks: Ranks,
    ) -> None:
        for name, value in (
            ("batch_size", batch_size),
            ("every_epochs", every_epochs),
            ("images", images or 1),
        ):
            if value < 1:
                raise ValueError(f"validation.{name}={value} must be at least 1")
        if samples < 0:
            raise ValueError(f"validation.samples={samples} must not be negative")
        self.examples = examples[:images]
        self.batches = make_batches(ranks.part(self.examples, batch_size), batch_size)
        self.ranks = ranks
        self.objective, self.generator, self.refinement = objective, generator, refinement
        self.vocabulary = vocabulary
        self.score, self.every_epochs, self.samples = score, every_epochs, samples
        self.metric = metric or self.usual_metric

    def is_due(self, epoch: int, *, last: bool) -> bool:
        """Whether to validate after this epoch (from 0); always after the last one."""
        return last or (epoch + 1) % self.every_epochs == 0

    def rehearse(
        self, captioner: nn.Module, device: torch.device, autocast: Callable[[], AbstractContextManager]
    ) -> None:
        """Two batches through everything validation does, so that it cannot fail after hours of training."""
        batches = list(islice(self.batches, 2))
        self._loss(captioner, batches, device, autocast)
        _, found, _ = self._scored_captions(captioner, batches, device, autocast)
        if self.metric not in found:
            raise ValueError(
                f"validation.metric={self.metric!r} is not measured; {describe_choices(self.metric, found)}"
            )

    def __call__(
        self, captioner: nn.Module, device: torch.device, autocast: Callable[[], AbstractContextManager]
    ) -> Validation:
        loss, shuffled = self._loss(captioner, self.batches, device, autocast)
        captions, scores, health = self._scored_captions(captioner, self.batches, device, autocast)
        return Validation({"loss": loss, "loss_of_shuffled_images": shuffled, **scores, **health}, captions)

    def _scored_captions(
        self,
        captioner: nn.Module,
        batches: Sequence[Batch] | Batches,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager],
    ) -> tuple[dict[str, str], dict[str, float], dict[str, float]]:
        """Captions of the batches of all ranks, in the examples' order, and what rank 0 makes of them."""
        own = caption_batches(
            captioner,
            batches,
            self.generator,
            self.vocabulary,
            device=device,
            autocast=autocast,
            refinement=self.refinement,
        )
        found = self.ranks.merge(own)
        examples = [example for example in self.examples if example.id in found]
        captions = {example.id: found[example.id] for example in examples}
        scores, health = self.ranks.share(self.score(examples, captions) if self.ranks.first else None)
        return captions, scores, health

    def sample_rows(self, validation: Validation) -> list[dict]:
        """Return the first few images with their caption and references, as a Tracker takes them."""
        return [
            {
                "id": example.id,
                "image": example.image,
                "caption": validation.captions[example.id],
                "references": list(example.references),
            }
            for example in self.examples[: self.samples]
        ]

    @torch.inference_mode()
    def _loss(
        self,
        captioner: nn.Module,
        batches: Sequence[Batch] | Batches,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager],
    ) -> tuple[float, float]:
        """Mean loss per word over `batches`, and over the first of them with images given to the wrong captions."""
        was_training = captioner.training
        captioner.eval()
        total = words = 0.0
        shuffled = float("nan")
        for number, batch in enumerate(batches):
            batch = batch.to(device)
            count = int((batch.targets != self.vocabulary.pad_id).sum())
            with autocast():
                total += float(self.objective(captioner, batch)[0]) * count
            if number == 0:
                # Outside of autocast, which on a CPU does not roll cached features: half precision is foreign to it.
                batch.inputs = replace(batch.inputs, images=batch.inputs.images.roll(1, dims=0))
                with autocast():
                    shuffled = float(self.objective(captioner, batch)[0])
            words += count
        captioner.train(was_training)
        sums = self.ranks.add({"loss": total, "words": words})
        return sums["loss"] / sums["words"], self.ranks.share(shuffled)


def warnings_of(validation: Validation, first: Mapping[str, float], metric: str) -> list[str]:
    """Return what is suspicious about a validation, in sentences; `first` are the values of the run's first one."""
    found = []
    values, images = validation.values, len(validation.captions)
    share = values.get("most_frequent_caption", 0.0)
    if images > 1 and share > 0.5:
        found.append(f"{share:.0%} of the validation images get the same caption")
    gain = values["loss_of_shuffled_images"] - values["loss"]
    if images > 1 and gain < _IMAGE_MATTERS:
        found.append(
            f"the loss is nearly the same with the wrong images ({values['loss_of_shuffled_images']:.3f} against "
            f"{values['loss']:.3f}): the decoder ignores the image"
        )
    before, now = (some.get("bad_endings", 0.0) for some in (first, values))
    if values[metric] > first[metric] and now > before + _MORE_BAD_ENDINGS:
        found.append(
            f"{metric} rose from {100 * first[metric]:.1f} to {100 * values[metric]:.1f} while captions with a bad "
            f"ending (a dog on a) went from {before:.1%} to {now:.1%}: it does not see that they break off"
        )
    return found
