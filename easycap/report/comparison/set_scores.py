"""The scores of the compared runs on other sets, and on groups of images such as nocaps' domains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from easycap.report.comparison.columns import Cell, score_cell
from easycap.report.comparison.protocol import common_protocol
from easycap.report.comparison.read_runs import Comparison, Run, usual_metrics
from easycap.report.evaluated_sets import other_set
from easycap.report.group_scores import WHOLE
from easycap.report.scores import mapping, score_of
from easycap.utils.text import NOTHING, is_number


@dataclass(frozen=True)
class SetTable:
    """One metric on the images of `label`, for each value of `field` ("": not grouped) and for all of them.

    `columns` are (value, number of images as text), the last of all images; `rows` are the runs that were scored there,
    with a cell for each column.
    """

    label: str
    field: str
    metric: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Run, tuple[Cell, ...]], ...]

    @property
    def title(self) -> str:
        """Return "nocaps by domain", or the set's name alone."""
        return f"{self.label} by {self.field}" if self.field else self.label

    @property
    def differences(self) -> list[str]:
        """Return a line for each score that was computed under a different protocol than most."""
        return [
            f"{self.metric} of #{run.number} on {self.label}, {value}: {cell.why}"
            for run, cells in self.rows
            for (value, _), cell in zip(self.columns, cells, strict=True)
            if cell.why
        ]


def set_tables(comparison: Comparison) -> list[SetTable]:
    """Return a table for each metric, each set, and each field by which its images are grouped.

    The split that is compared is among them only if its images are grouped.
    """
    return [
        _table(comparison.runs, label, field, metric)
        for label, field in _sets(comparison)
        for metric in _metrics(comparison, label)
    ]


def _sets(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """The labels with the fields of each; the field is empty for another set without groups."""
    labels = dict.fromkeys(label for run in comparison.runs for label in mapping(run.result, "scores"))
    for label in labels:
        groups = (mapping(run.result, "groups", label) for run in comparison.runs)
        fields = dict.fromkeys(field for found in groups for field, of in found.items() if of)
        if fields:
            yield from ((label, field) for field in fields)
        elif label != comparison.split and any(other_set(run.result, label) for run in comparison.runs):
            yield label, ""


def _metrics(comparison: Comparison, label: str) -> list[str]:
    """The metrics of the main table that there are, then the others that are usual."""
    there = [
        metric
        for metric in comparison.metrics
        if any(score_of(run.result, label, metric) for run in comparison.runs)
    ]
    return list(dict.fromkeys([*there, *usual_metrics(comparison.runs, label)]))


def _table(runs: Sequence[Run], label: str, field: str, metric: str) -> SetTable:
    values = dict.fromkeys(value for run in runs for value in mapping(run.result, "groups", label, field))
    scores = {
        value: {run.number: score for run in runs if (score := _score(run, label, field, value, metric))}
        for value in [*values, WHOLE]
    }
    why = {value: _differences(of) for value, of in scores.items()}
    rows = tuple(
        (
            run,
            tuple(
                score_cell(of.get(run.number), metric, why[value].get(run.number, ""))
                for value, of in scores.items()
            ),
        )
        for run in runs
        if any(run.number in of for of in scores.values())
    )
    columns = tuple((value, _num_images(runs, label, field, value)) for value in scores)
    return SetTable(label, field, metric, columns, rows)


def _score(run: Run, label: str, field: str, value: str, metric: str) -> Mapping[str, Any] | None:
    if value == WHOLE:
        return score_of(run.result, label, metric)
    score = mapping(run.result, "groups", label, field, value, "scores", metric)
    return score if is_number(score.get("value")) else None


def _differences(scores: Mapping[int, Mapping[str, Any]]) -> Mapping[int, str]:
    """{run number: in what the protocol of its score differs from that of most}."""
    signatures = {number: (str(score.get("signature") or ""), None) for number, score in scores.items()}
    protocol = common_protocol(signatures)
    return protocol.reasons if protocol else {}


def _num_images(runs: Sequence[Run], label: str, field: str, value: str) -> str:
    """The number of images as text, "3–4" where it differs between runs."""
    found: list[Any] = []
    for run in runs:
        groups = mapping(run.result, "groups", label, field)
        if value != WHOLE:
            found.append(mapping(groups, value).get("images"))
        elif groups:
            found.append(sum(mapping(groups, one).get("images", 0) for one in groups))
        else:
            found.append(other_set(run.result, label).get("images"))
    numbers = sorted({number for number in found if is_number(number)})
    if not numbers:
        return NOTHING
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,}–{numbers[-1]:,}"
