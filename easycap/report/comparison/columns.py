"""The table of runs as columns of cells: one source for the terminal, the page and the exports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from easycap.report.comparison.read_runs import Comparison, Run
from easycap.report.evaluated_sets import unknown_words_text
from easycap.report.scores import oracle_mark
from easycap.utils.text import COSTS, NOTHING, interval_text, is_number, score_text

DIFFERENT = "≠"  # marks a score computed under a different protocol
TEXT_KINDS = ("run", "setting", "following")


@dataclass(frozen=True)
class Cell:
    """What one column says of one run; `number`, `low` and `high` are as in result.json, `why` explains a mark.

    For several runs `number` is the mean and `spread` the standard deviation.
    """

    text: str
    interval: str = ""
    number: float | None = None
    low: float | None = None
    high: float | None = None
    why: str = ""
    spread: float | None = None


@dataclass(frozen=True)
class Column:
    """One column; `kind` is run, setting, score, mean (of scores), cost or following, and `cells` stand in the order of
    the runs.
    """

    kind: str
    key: str
    title: str
    cells: tuple[Cell, ...]

    @property
    def is_constant(self) -> bool:
        """Return whether all runs have the same text here."""
        return len({cell.text for cell in self.cells}) == 1


def columns(comparison: Comparison) -> list[Column]:
    """Return all columns: status where a run is not completed, settings, seed, scores, the share of another set's
    reference words that a vocabulary lacks, cost, what follows from a choice.
    """
    found = []
    if any(run.state != "completed" for run in comparison.runs):
        states = tuple(Cell(run.state, why=run.problem) for run in comparison.runs)
        found.append(Column("run", "status", "status", states))
    found += [_setting(comparison, key, "setting") for key in comparison.keys]
    for metric in comparison.metrics:
        cells = tuple(_score(comparison, run, metric) for run in comparison.runs)
        found.append(Column("score", metric, metric, cells))
    unknown = tuple(
        Cell(unknown_words_text(run.result, comparison.split) or NOTHING) for run in comparison.runs
    )
    if any(cell.text != NOTHING for cell in unknown):
        found.append(Column("run", "unknown", "unknown words, %", unknown))
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
    protocol = comparison.protocols.get(metric)
    why = protocol.reasons.get(run.number, "") if protocol else ""
    return score_cell(comparison.score(run, metric), metric, why)


def score_cell(score: Mapping[str, Any] | None, metric: str, why: str) -> Cell:
    """Return the cell of a score; `why` says in what its protocol differs from that of most runs, if it does."""
    if score is None:
        return Cell(NOTHING)
    return Cell(
        score_text(score["value"], metric) + oracle_mark(score),
        interval_text(score, metric),
        score["value"],
        _bound(score, "low"),
        _bound(score, "high"),
        why,
    )


def _bound(score: Mapping[str, Any], end: str) -> float | None:
    value = score.get(end)
    return value if is_number(value) else None
