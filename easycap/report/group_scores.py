"""Scores for each value of a field of the images, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from easycap.report.scores import Cell, ScoreTable, mapping, oracle_mark
from easycap.utils.text import NOTHING, interval_text, metric_order, score_text

WHOLE = "entire"
_VALUE_COLUMN, _SCORE_COLUMN = 24, 22  # characters, the number of images included


def group_score_tables(result: Mapping[str, Any], label: str) -> dict[str, ScoreTable]:
    """Return {field: table} of a split: a row for each value and one for all images, columns are images and metrics."""
    tables = {}
    for field, groups in mapping(result, "groups", label).items():
        whole = mapping(result, "scores", label)
        metrics = metric_order(name for name in whole if "value" in mapping(whole, name))
        images = sum(group["images"] for group in groups.values())
        everything = {**groups, WHOLE: {"images": images, "scores": whole}}
        rows = tuple(
            (value, (Cell(f"{group['images']:,}"), *(_cell(group["scores"].get(m), m) for m in metrics)))
            for value, group in everything.items()
        )
        tables[field] = ScoreTable(("images", *metrics), rows, {})
    return tables


def _cell(score: Any, metric: str) -> Cell:
    if not isinstance(score, Mapping) or "value" not in score:
        return Cell(NOTHING)
    text = score_text(score["value"], metric) + oracle_mark(score)
    return Cell(text, interval_text(score, metric), signature=str(score.get("signature") or ""))


def group_tables(result: Mapping[str, Any], labels: Sequence[str], *, width: int) -> list[Table]:
    """Return the same for the terminal, with as many metrics as fit `width` characters; the report has all."""
    return [
        _table(label, field, table, width)
        for label in labels
        for field, table in group_score_tables(result, label).items()
    ]


def _table(label: str, field: str, scores: ScoreTable, width: int) -> Table:
    shown = 1 + max(1, (width - _VALUE_COLUMN) // _SCORE_COLUMN)
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{label} by {field}", title_justify="left", padding=(0, 1, 0, 0)
    )
    table.add_column(field, overflow="fold")
    for name in scores.columns[:shown]:
        table.add_column(name, justify="right" if name == "images" else "left", no_wrap=True)
    for value, cells in scores.rows:
        table.add_row(Text(value), *map(_text, cells[:shown]), end_section=value == scores.rows[-2][0])
    return table


def _text(cell: Cell) -> Text:
    text = Text(f"{cell.text:>5}")
    return text.append(f"  {cell.interval}", style="dim") if cell.interval else text
