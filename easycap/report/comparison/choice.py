"""The columns of an exported table: all or a selection, with a row per run or per setting over its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from easycap.errors import UserError
from easycap.registry import describe_choices
from easycap.report.comparison.columns import Cell, Column, columns, names
from easycap.report.comparison.read_runs import Comparison
from easycap.report.comparison.settings import SEED
from easycap.utils.text import COSTS, score_text

_SEEDS = "seeds"
_MORE_IS_BETTER = (
    "BLEU",
    "CIDEr",
    "METEOR",
    "ROUGE",
    "SPICE",
    "truth",
    "recall",
    "CLIPScore",
    "RefCLIP",
    "mAP",
)


def table_of(comparison: Comparison, *, wanted: Sequence[str] | None, over_seeds: bool) -> list[Column]:
    """Return the columns of a table: `wanted` in that order, or all if None.

    With `over_seeds`, runs that differ only in the seed are merged into one row: scores are mean ± standard deviation
    (with n - 1), costs the mean. Raises `UserError` for an unknown column.
    """
    table = [names(comparison), *columns(comparison)]
    if over_seeds:
        table = _over_seeds(comparison, table)
    if wanted is None:
        return table
    there = {column.key: column for column in table}
    for key in wanted:
        if key not in there:
            raise UserError(f"no column {key!r}; {describe_choices(key, there)}")
    return [there[key] for key in dict.fromkeys(wanted)]


def best_indices(column: Column) -> set[int]:
    """Return the indices of a score's best cells, as rounded for print, except those marked ≠ or (oracle).

    Empty if higher is not known to be better, or if fewer than two cells qualify.
    """
    if column.kind not in ("score", "mean") or not column.key.startswith(_MORE_IS_BETTER):
        return set()
    candidates = [index for index, cell in enumerate(column.cells) if _can_be_best(cell)]
    if len(candidates) < 2:
        return set()
    best = max((column.cells[index] for index in candidates), key=lambda cell: cell.number or 0.0).text
    return {index for index in candidates if column.cells[index].text == best}


def _can_be_best(cell: Cell) -> bool:
    return cell.number is not None and not cell.why and not cell.text.endswith("(oracle)")


def _over_seeds(comparison: Comparison, table: Sequence[Column]) -> list[Column]:
    groups = _groups(comparison)
    found = []
    for column in table:
        if column.key in ("run", "status"):
            continue
        if column.key == SEED:
            seeds = tuple(Cell(str(len(indices)), number=len(indices)) for indices in groups)
            found.append(Column("setting", _SEEDS, _SEEDS, seeds))
            continue
        cells = tuple(_merged(column, [column.cells[index] for index in indices]) for indices in groups)
        found.append(
            Column("mean" if column.kind == "score" else column.kind, column.key, column.title, cells)
        )
    return found


def _groups(comparison: Comparison) -> list[list[int]]:
    """The indices of runs whose settings are equal except the seed and settings tied to it."""
    groups: dict[tuple[str | None, ...], list[int]] = {}
    keys = [
        key
        for key in (*comparison.settings, *comparison.following)
        if any(run.settings.get(key) not in (None, run.settings.get(SEED)) for run in comparison.runs)
    ]
    for index, run in enumerate(comparison.runs):
        groups.setdefault(tuple(run.settings.get(key) for key in keys), []).append(index)
    return list(groups.values())


def _merged(column: Column, cells: Sequence[Cell]) -> Cell:
    numbers = [cell.number for cell in cells if cell.number is not None]
    if column.kind not in ("score", "cost") or not numbers:
        return cells[0]
    mean = statistics.fmean(numbers)
    if column.kind == "cost":
        return Cell(COSTS[column.key][1](mean), number=mean)
    spread = statistics.stdev(numbers) if len(numbers) > 1 else None
    text = score_text(mean, column.key) + (" (oracle)" if cells[0].text.endswith("(oracle)") else "")
    deviation = "" if spread is None else f"± {score_text(spread, column.key)}"
    if len(numbers) < len(cells):
        deviation = f"{deviation} of {len(numbers)}".strip()
    return Cell(text, deviation, mean, spread=spread, why="; ".join({c.why: None for c in cells if c.why}))
