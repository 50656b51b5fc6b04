"""A model with what surrounds it: images and text conditions to its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch

from easycap.conditioning.conditions import ConditionSet
from easycap.data.loader import Batches, collate, context_ids, evaluation_batches
from easycap.data.transforms import Transform
from easycap.training.hardware import Precision, autocast
from easycap.types import Example, ImageInput, Inputs, Vocabulary
from easycap.utils.cpu_threads import choose_threads


@dataclass(frozen=True)
class Pipeline:
    """A model on its `device` with all that turns examples into its inputs.

    `view` gives it an image's pixels or features, `conditions` its text conditions.
    `max_length` is the longest row of ids that the model takes.
    """

    model: Any
    vocabulary: Vocabulary
    view: ImageInput
    conditions: ConditionSet
    max_length: int
    device: torch.device
    precision: Precision
    workers: int | str

    def autocast(self) -> AbstractContextManager:
        """Return the context to call the model in."""
        return autocast(self.device, self.precision)

    @property
    def transform(self) -> Transform:
        """The model's own preprocessing of images; raises `UserError` if it reads precomputed features."""
        return Transform(self.model.encoder.preprocessing)

    def batches(self, examples: Sequence[Example], batch_size: int) -> Batches:
        """Return batches over all examples in order, each image once."""
        self.conditions.prepare(examples, "test")
        return evaluation_batches(
            examples,
            self.view,
            self.vocabulary,
            self.conditions,
            batch_size=batch_size,
            max_length=self.max_length,
            workers=self.workers,
        )

    def inputs(
        self,
        examples: Sequence[Example],
        images: Sequence[Any] | None = None,
        given: Mapping[str, Sequence[str]] | None = None,
    ) -> Inputs:
        """Return what the model gets of examples at test time.

        `images` are theirs if they have been read; `given` has texts by condition that
        replace the condition's own.
        """
        images = [self.view.of(example) for example in examples] if images is None else images
        texts = {
            name: (given or {}).get(name) or self.conditions.texts(name, examples) for name in self.conditions
        }
        context = {name: self.context_ids(name, of) for name, of in texts.items()}
        return Inputs(collate(images), context).to(self.device)

    def with_draft(self, inputs: Inputs, texts: Sequence[str]) -> Inputs:
        """Return the inputs of N images with other drafts."""
        draft = self.context_ids("draft", texts).to(inputs.images.device)
        return replace(inputs, context=inputs.context | {"draft": draft})

    def context_ids(self, condition: str, texts: Sequence[str]) -> torch.Tensor:
        """Return the ids (N,M) of a condition's texts for N images."""
        return context_ids(texts, self.vocabulary, self.conditions[condition])

    def choose_threads(self, decode: Callable[[Inputs], object], inputs: Inputs, *, ahead: int) -> None:
        """Set the number of threads that is fastest for decoding such inputs, `ahead` images in all."""

        @torch.no_grad()
        def work(count: int) -> None:
            with self.autocast():
                decode(inputs.first(count))

        images = len(inputs.images)
        choose_threads(work, images=images, ahead=ahead, device=self.device, what=f"{ahead:,} images")

    def choose_threads_for(
        self, decode: Callable[[Inputs], object], examples: Sequence[Example], batch_size: int
    ) -> None:
        """Choose the number of threads on the first batch of examples, if there are several batches."""
        if len(examples) > batch_size:
            batch = next(iter(self.batches(examples[:batch_size], batch_size)))
            self.choose_threads(decode, batch.inputs.to(self.device), ahead=len(examples))
