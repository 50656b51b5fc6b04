"""What is captioned and scored: a split of the run's own data, or images of another set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from easycap.errors import UserError
from easycap.types import Dataset, Example

# All images of another set, whatever their split.
ALL = "all"
_USUAL = ("test", "val", "train")


class OtherSet(NamedTuple):
    """Another data set than the run's own: its name, and the run's config with that set's `data` and features."""

    name: str
    config: Mapping[str, Any]
    data: Dataset


@dataclass(frozen=True)
class EvaluationSet:
    """Examples under the `label` that names their scores; `scorers` know their annotations.

    `other` is the set that they are of, None for a split of the run's own data. They are
    also scored for each value of the fields `group_by`. With `measures_cost` the speed on them is the run's, as it is
    on test.
    """

    label: str
    split: str
    examples: Sequence[Example]
    scorers: Sequence[str]
    other: OtherSet | None = None
    group_by: tuple[str, ...] = ()
    measures_cost: bool = False


def own_split(data: Dataset, split: str | None) -> EvaluationSet:
    """Return a split of the run's own data, by default test; `UserError` names the splits there are."""
    split = split or "test"
    if split not in data.splits:
        raise UserError(f"split {split!r} does not exist; allowed: {', '.join(data.splits)}")
    return EvaluationSet(split, split, data.splits[split], data.scorers)


def split_of_other(other: OtherSet, split: str | None) -> EvaluationSet:
    """Return a split of another set, "all" for all its images once.

    By default it is test, or, where test has no images, val. Its label is then the set's
    name; other splits are NAME_SPLIT. Raises `UserError` for a split without images.
    """
    splits = other.data.splits
    usual = _usual_split(splits)
    split = split or usual
    examples: Sequence[Example]
    if split == ALL:
        examples = list({example.id: example for of in splits.values() for example in of}.values())
    elif split not in splits:
        raise UserError(f"{other.name} has no split {split!r}; allowed: {', '.join([*splits, ALL])}")
    else:
        examples = splits[split]
    if not examples:
        why = next((f": {i.file} {i.what}" for i in other.data.issues if i.split == split and not i.id), "")
        there = ", ".join(name for name, of in splits.items() if of) or "none"
        raise UserError(f"{other.name} has no images in split {split!r}{why}; splits with images: {there}")
    label = other.name if splits.get(split) is splits.get(usual) else f"{other.name}_{split}"
    return EvaluationSet(label, split, examples, other.data.scorers, other)


def _usual_split(splits: Mapping[str, Sequence[Example]]) -> str:
    """The split that a set is tested on: the first of test, val, train and the others that has images.

    A test split that is val too, as the data has no other, is called val.
    """
    if splits.get("val") and splits.get("test") is splits["val"]:
        return "val"
    names = [*(name for name in _USUAL if name in splits), *(name for name in splits if name not in _USUAL)]
    return next((name for name in names if splits[name]), "test")
