"""The table of runs as columns of cells: one source for the terminal, the page and the exports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from easycap.report.comparison.runs import Comparison, Run
from easycap.report.numbers import COSTS, NOTHING, interval_text, is_number, score_text
from easycap.report.scores import oracle_mark

DIFFERENT = "≠"  # marks a score that stands on other terms
TEXT_KINDS = ("run", "setting", "following")


@dataclass(frozen=True)
class Cell:
    """What one column says of one run; `number`, `low` and `high` are as in result.json, `why` explains a mark."""

    text: str
    interval: str = ""
    number: float | None = None
    low: float | None = None
    high: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Column:
    """One column; `kind` is run, setting, score, cost or following, and `cells` stand in the order of the runs."""

    kind: str
    key: str
    title: str
    cells: tuple[Cell, ...]

    @property
    def is_constant(self) -> bool:
        return len({cell.text for cell in self.cells}) == 1


def columns(comparison: Comparison) -> list[Column]:
    """Return all columns: status where a run is not completed, settings, seed, scores, cost, what follows from a
    choice."""
    found = []
    if any(run.state != "completed" for run in comparison.runs):
        states = tuple(Cell(run.state, why=run.problem) for run in comparison.runs)
        found.append(Column("run", "status", "status", states))
    found += [_setting(comparison, key, "setting") for key in comparison.keys]
    for metric in comparison.metrics:
        cells = tuple(_score(comparison, run, metric) for run in comparison.runs)
        found.append(Column("score", metric, metric, cells))
    for key in comparison.costs:
        title, text = COSTS[key]
        cells = tuple(Cell(text(run.cost(key)), number=run.cost(key)) for run in comparison.runs)
        found.append(Column("cost", key, title, cells))
    return found + [_setting(comparison, key, "following") for key in comparison.following]


def names(comparison: Comparison) -> Column:
    """Return the runs' names as a column."""
    return Column("run", "run", "run", tuple(Cell(run.name) for run in comparison.runs))


def _setting(comparison: Comparison, key: str, kind: str) -> Column:
    return Column(kind, key, key, tuple(Cell(run.settings.get(key, NOTHING)) for run in comparison.runs))


def _score(comparison: Comparison, run: Run, metric: str) -> Cell:
    score = comparison.score(run, metric)
    if score is None:
        return Cell(NOTHING)
    why = comparison.terms[metric].reasons.get(run.number, "")
    return Cell(
        score_text(score["value"], metric) + oracle_mark(score),
        interval_text(score, metric),
        score["value"],
        _bound(score, "low"),
        _bound(score, "high"),
        why,
    )


def _bound(score: Mapping[str, object], end: str) -> float | None:
    value = score.get(end)
    return value if is_number(value) else None
