"""The pipelines of an ensemble's members as one: each member gets its own view of an image and its own text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from easycap.conditioning.conditions import ConditionSet
from easycap.data.loader import Batches
from easycap.data.transforms import Transform
from easycap.evaluation.pipeline import Pipeline
from easycap.generation.ensemble import Ensemble, EnsembleInputs
from easycap.types import Batch, Example, ImageSource, Inputs, TextCondition


class EnsembleBatches(Batches):
    """The members' batches of the same images as one; their captions are the first member's."""

    def __init__(self, members: Sequence[Batches]) -> None:
        super().__init__(members[0].loader)
        self.members = tuple(members)

    def __iter__(self) -> Iterator[Batch]:
        for batches in zip(*self.members, strict=True):
            yield replace(batches[0], inputs=EnsembleInputs.of([batch.inputs for batch in batches]))


class EnsembleTransform(Transform):
    """The members' preprocessing as one: an image source -> the pixels that each member gets."""

    def __init__(self, members: Sequence[Transform]) -> None:
        self.members = tuple(members)

    def __call__(self, source: ImageSource) -> Any:
        """Return pixels (3,S,S), uint8, for each member."""
        return [member(source) for member in self.members]


@dataclass(frozen=True)
class EnsemblePipeline(Pipeline):
    """The `members` as one pipeline, whose `model` is an `Ensemble`; what else a pipeline has is the first member's.

    `conditions` has each condition that a member has, for what there is to say of them. Made by `ensemble_pipeline`.
    """

    members: tuple[Pipeline, ...] = ()

    def autocast(self) -> AbstractContextManager:
        """Return the context to call the model in; members of several precisions make their own."""
        return self.members[0].autocast() if _one_precision(self.members) else nullcontext()

    @property
    def transform(self) -> Transform:
        """The members' own preprocessing of images; raises `UserError` if one reads precomputed features."""
        return EnsembleTransform([member.transform for member in self.members])

    def batches(self, examples: Sequence[Example], batch_size: int) -> Batches:
        """Return batches over all examples in order, each image once."""
        return EnsembleBatches([member.batches(examples, batch_size) for member in self.members])

    def inputs(
        self,
        examples: Sequence[Example],
        images: Sequence[Any] | None = None,
        given: Mapping[str, Sequence[str]] | None = None,
    ) -> Inputs:
        """Return what the members get of examples at test time; `images` have for each what `transform` returns."""
        found = []
        for number, member in enumerate(self.members):
            own = None if images is None else [of_members[number] for of_members in images]
            found.append(member.inputs(examples, own, given))
        return EnsembleInputs.of(found)

    def with_draft(self, inputs: Inputs, texts: Sequence[str]) -> Inputs:
        """Return the inputs of N images with other drafts, for the members that read one."""
        assert isinstance(inputs, EnsembleInputs)
        of_members = zip(self.members, inputs.members, strict=True)
        return EnsembleInputs.of(
            [
                member.with_draft(of, texts) if "draft" in member.conditions else of
                for member, of in of_members
            ]
        )


def ensemble_pipeline(members: Sequence[Pipeline]) -> EnsemblePipeline:
    """Return the pipelines of captioners with one vocabulary on one device as one."""
    first = members[0]
    autocasts: list[Callable[[], AbstractContextManager]] | None = None
    if not _one_precision(members):
        autocasts = [member.autocast for member in members]
    return EnsemblePipeline(
        model=Ensemble([member.model for member in members], autocasts),
        vocabulary=first.vocabulary,
        view=first.view,
        conditions=ConditionSet(_all_conditions(members), loaded=True),
        max_length=min(member.max_length for member in members),
        device=first.device,
        precision=first.precision,
        workers=first.workers,
        members=tuple(members),
    )


def _one_precision(members: Sequence[Pipeline]) -> bool:
    return len({member.precision for member in members}) == 1


def _all_conditions(members: Sequence[Pipeline]) -> dict[str, TextCondition]:
    """Each condition of the members by name; of several, one that reads references or has text for its data alone."""
    found: dict[str, TextCondition] = {}
    for member in members:
        for name, condition in member.conditions.items():
            if name not in found or _limits(condition) > _limits(found[name]):
                found[name] = condition
    return found


def _limits(condition: TextCondition) -> tuple[bool, bool]:
    about = condition.describe()
    return about.oracle, not about.any_image


def reads_features(pipeline: Pipeline) -> bool:
    """Return whether the model, or a member of the ensemble, reads precomputed features."""
    members = pipeline.members if isinstance(pipeline, EnsemblePipeline) else (pipeline,)
    return any(member.model.encoder.preprocessing is None for member in members)
