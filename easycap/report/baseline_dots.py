"""The model and its baselines as dots on a common axis, and what a report says of baselines besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from easycap.report.scores import BASELINES, HEADLINE, ScoreTable, baselines_of, oracle_mark, score_of
from easycap.utils.text import interval_text, is_number, score_text


@dataclass(frozen=True)
class Dot:
    """A value with its interval on a common axis; `left`, `start`, `end` are percent of the axis' length."""

    label: str
    text: str
    interval: str
    is_model: bool
    left: float
    start: float
    end: float


@dataclass(frozen=True)
class DotGroup:
    """Values of one signature: these, and only these, may be compared."""

    title: str
    signature: str
    dots: tuple[Dot, ...]


def dot_groups(result: Mapping[str, Any], split: str, metric: str = HEADLINE) -> list[DotGroup]:
    """Return the model and its baselines on one axis from zero, grouped by signature, first those computed as the
    split's score; empty without baselines.
    """
    rows: list[tuple[str, Any, bool]] = [
        (label, score, "model" in key)
        for key, label, scores in baselines_of(result, split)
        if isinstance(score := scores.get(metric), Mapping) and is_number(score.get("value"))
    ]
    if not rows:
        return []
    if own := score_of(result, split, metric):
        rows.insert(0, ("this model", own, True))
    top = max((row[1].get("high") or row[1]["value"] for row in rows), default=1.0) or 1.0
    by_signature: dict[str, list[tuple[str, Any, bool]]] = {}
    for row in rows:
        by_signature.setdefault(str(row[1].get("signature") or ""), []).append(row)
    return [_group(signature, rows, metric, top) for signature, rows in by_signature.items()]


def without_metric(table: ScoreTable, metric: str) -> ScoreTable:
    """Return the table without the column of `metric`, which dots show already."""
    shown = [index for index, name in enumerate(table.columns) if name != metric]
    rows = ((name, tuple(cells[index] for index in shown)) for name, cells in table.rows)
    return replace(table, columns=tuple(table.columns[index] for index in shown), rows=tuple(rows))


def _group(signature: str, rows: Sequence[tuple[str, Any, bool]], metric: str, top: float) -> DotGroup:
    dots = []
    for label, score, is_model in rows:
        low, high = (
            score.get(end) if is_number(score.get(end)) else score["value"] for end in ("low", "high")
        )
        left, start, end = (100 * max(0.0, value) / top for value in (score["value"], low, high))
        text = score_text(score["value"], metric) + oracle_mark(score)
        dots.append(Dot(label, text, interval_text(score, metric), is_model, left, start, end))
    against_rest = any(label == BASELINES["reference_caption"] for label, _, _ in rows)
    title = (
        "the first reference as a caption, against the others" if against_rest else "against all references"
    )
    return DotGroup(title, signature, tuple(dots))
