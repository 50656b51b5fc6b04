"""Scores for each value of a field of the images, such as nocaps' domain."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from easycap.errors import UserError
from easycap.metrics import Scores
from easycap.metrics.subset import subset_scores
from easycap.registry import describe_choices
from easycap.runs.reading import read_result
from easycap.runs.run_folder import RunFolder
from easycap.types import Example

NO_VALUE = "(none)"
_MAX_GROUPS = 100
# By these nocaps is reported everywhere, so they need not be asked for.
_DOMAINS = ("domain", {"in-domain", "near-domain", "out-domain"})
# What separates the parts of a signature.
_SEPARATORS = re.compile("[|:]")


def usual_fields(examples: Sequence[Example]) -> tuple[str, ...]:
    """Return the fields by which a set of images is reported without being asked: nocaps' domain."""
    field, values = _DOMAINS
    found = {example.fields.get(field) for example in examples}
    return (field,) if len(found) > 1 and found <= values else ()


def examples_by_value(examples: Sequence[Example], field: str) -> dict[str, list[Example]]:
    """Return examples by the value of `field`, numbers in their order, others by the alphabet; those without are last.

    Raises `UserError` if no image has it, or if it has too many values for groups.
    """
    if not any(field in example.fields for example in examples):
        known = sorted({name for example in examples for name in example.fields})
        there = describe_choices(field, known) if known else "these images have no fields"
        raise UserError(f"no image has the field {field!r} to group by; {there}")
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.fields.get(field) or NO_VALUE, []).append(example)
    if len(groups) > _MAX_GROUPS:
        raise UserError(
            f"{len(examples):,} images have {len(groups):,} different values of {field!r}; they can be grouped by at "
            f"most {_MAX_GROUPS}"
        )
    return {value: groups[value] for value in sorted(groups, key=_order)}


def score_groups(
    examples: Sequence[Example], fields: Sequence[str], label: str, scores: Scores
) -> dict[str, Any]:
    """Return {field: {value: {"images": number, "scores": {metric: ...}}}} from the scores of all examples.

    The split in the signatures of a group is label/field=value. A group whose references
    are all empty, such as images without tags, has no scores.
    """
    return {
        field: {
            value: {"images": len(of), "scores": _of_group(of, scores, _split_name(label, field, value))}
            for value, of in examples_by_value(examples, field).items()
        }
        for field in fields
    }


def _of_group(examples: Sequence[Example], scores: Scores, split: str) -> dict[str, Any]:
    if not any(text for example in examples for text in example.references):
        return {}
    return subset_scores(scores, [example.id for example in examples], split=split).to_dict()


def record_groups(folder: RunFolder, label: str, groups: Mapping[str, Any]) -> None:
    """Write the scores of groups of a split into result.json, in place of those of an earlier evaluation."""
    if groups or label in ((read_result(folder.path) or {}).get("groups") or {}):
        folder.update_result({"groups": {label: groups}})


def _split_name(label: str, field: str, value: str) -> str:
    return _SEPARATORS.sub("_", f"{label}/{field}={value}")


def _order(value: str) -> tuple[int, float, str]:
    if value == NO_VALUE:
        return (2, 0.0, value)
    try:
        return (0, float(value), value)
    except ValueError:
        return (1, 0.0, value)
