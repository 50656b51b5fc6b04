"""The table of runs as CSV, LaTeX and Markdown: all columns of the page, or those chosen."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

from easycap.report.comparison.choice import best_indices, table_of
from easycap.report.comparison.columns import DIFFERENT, TEXT_KINDS, Cell, Column
from easycap.report.comparison.read_runs import Comparison
from easycap.report.latex import escape, tabular
from easycap.utils.text import SCALE_NOTE, csv_cell


def to_csv(comparison: Comparison, table: Sequence[Column] | None = None) -> str:
    """Return the table (None: all columns, a row per run) with numbers as in result.json (1.0 is CIDEr 100, bytes,
    seconds); each score has columns for its interval, its signature, and how its protocol differs from most runs', a
    mean one for its standard deviation.
    """
    text = io.StringIO()
    table = _all(comparison) if table is None else table
    heads = [head for column in table for head in _heads(column)]
    writer = csv.DictWriter(text, heads, lineterminator="\n")
    writer.writeheader()
    for row in rows_of(comparison, table):
        writer.writerow({head: csv_cell(value) for head, value in row.items()})
    return text.getvalue()


def rows_of(comparison: Comparison, table: Sequence[Column]) -> list[dict[str, Any]]:
    """Return the table as rows {column: value}; see `to_csv`. A missing number is None."""
    signatures = [
        {m: (comparison.score(run, m) or {}).get("signature", "") for m in comparison.metrics}
        for run in comparison.runs
    ]
    return [
        {
            head: value
            for column in table
            for head, value in zip(_heads(column), _values(column, index, signatures[index]), strict=True)
        }
        for index in _indices(table)
    ]


def _all(comparison: Comparison) -> list[Column]:
    return table_of(comparison, wanted=None, over_seeds=False)


def _indices(table: Sequence[Column]) -> range:
    return range(len(table[0].cells))


def _heads(column: Column) -> list[str]:
    if column.kind == "mean":
        return [column.key, f"{column.key} sd"]
    if column.kind != "score":
        return [column.key]
    return [column.key, *(f"{column.key} {part}" for part in ("low", "high", "signature", "differs"))]


def _values(column: Column, index: int, signatures: dict[str, str]) -> list[Any]:
    cell = column.cells[index]
    if column.kind == "score":
        return [cell.number, cell.low, cell.high, signatures[column.key], cell.why]
    if column.kind == "mean":
        return [cell.number, cell.spread]
    return [cell.number if column.kind == "cost" else cell.text]


def to_markdown(comparison: Comparison, table: Sequence[Column] | None = None) -> str:
    """Return the table in GitHub's Markdown, scores ×100 with their intervals or deviations, followed by what it says
    and how.
    """
    table = _all(comparison) if table is None else table
    lines = [_row([_markdown(column.title) for column in table])]
    lines.append(_row(["---" if column.kind in TEXT_KINDS else "---:" for column in table]))
    for index in _indices(table):
        lines.append(_row([_markdown(_scored(column.cells[index])) for column in table]))
    return "\n".join([*lines, "", *(f"{_markdown(line)}  " for line in _footer(comparison, table))]) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    text = " ".join(text.split())
    for character in "\\`*_[]|~$":
        text = text.replace(character, f"\\{character}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def to_latex(comparison: Comparison, table: Sequence[Column] | None = None) -> str:
    """Return the table for a paper: booktabs, everything escaped, scores ×100 with small intervals or deviations, the
    best in bold.
    """
    table = _all(comparison) if table is None else table
    align = "".join("l" if column.kind in TEXT_KINDS else "r" for column in table)
    best = [best_indices(column) for column in table]
    rows = [
        [_latex_cell(column.cells[index], index in of) for column, of in zip(table, best, strict=True)]
        for index in _indices(table)
    ]
    return tabular(align, [escape(column.title) for column in table], rows, _footer(comparison, table))


def _latex_cell(cell: Cell, is_best: bool) -> str:
    mark = f" {escape(DIFFERENT)}" if cell.why and cell.number is not None else ""
    interval = rf" {{\scriptsize {escape(cell.interval)}}}" if cell.interval else ""
    text = escape(cell.text)
    return (rf"\textbf{{{text}}}" if is_best else text) + interval + mark


def _scored(cell: Cell) -> str:
    interval = cell.interval if cell.interval.startswith("±") else f"({cell.interval})"
    interval = f" {interval}" if cell.interval else ""
    return cell.text + interval + (f" {DIFFERENT}" if cell.why and cell.number is not None else "")


def _footer(comparison: Comparison, table: Sequence[Column]) -> list[str]:
    kinds = {column.kind for column in table}
    small = "In parentheses or small print: 95 % intervals over its images."
    if "mean" in kinds:
        small = "Mean ± standard deviation over runs that differ only in the seed."
    lines = [f"Split {comparison.split}. {SCALE_NOTE} {small if kinds & {'score', 'mean'} else ''}"]
    lines += [f"Signature: {protocol.signature}" for protocol in comparison.protocols.values()]
    for metric, protocol in comparison.protocols.items():
        for number, why in protocol.reasons.items():
            lines.append(f"{DIFFERENT} {metric} of {comparison.runs[number - 1].name}: {why}")
    lines += [f"Made by: {command}" for command in comparison.commands]
    return [" ".join(line.split()) for line in lines]


EXPORTS: dict[str, Callable[..., str]] = {
    "csv": to_csv,
    "latex": to_latex,
    "markdown": to_markdown,
}
