"""Published rows and runs as CSV, Markdown and LaTeX, a line per row, run and metric."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from easycap.report.latex import escape, tabular
from easycap.report.published.matching import Cell, MatchedRow
from easycap.report.published.print_rows import difference, interval, notes, number, published_text
from easycap.report.published.rows import Paper
from easycap.utils.text import csv_cell

_NUMBERS = ("published", "ours", "low", "high", "difference")


def to_csv(paper: Paper, rows: Sequence[MatchedRow]) -> str:  # noqa: ARG001  one of EXPORTS
    """Return all numbers ×100 with their sources, signatures and what differs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ("row", "recipe", "split", "run", "metric", *_NUMBERS)
    writer.writerow((*head, "checked", "sources", "source", "notes", "differs", "signature"))
    for one in rows:
        row = one.row
        run = "not run" if one.run is None else one.run.resolve().name
        about = (str(row.checked).lower(), row.sources, row.source, row.remarks, "; ".join(one.notes))
        for cell in one.cells:
            values = ["" if (value := getattr(cell, key)) is None else round(value, 4) for key in _NUMBERS]
            texts = (row.name, row.recipe, row.split, run, cell.metric)
            writer.writerow(map(csv_cell, (*texts, *values, *about, cell.signature)))
    return text.getvalue()


def to_markdown(paper: Paper, rows: Sequence[MatchedRow]) -> str:
    """Return a table in GitHub's Markdown, followed by what the numbers mean and in what runs differ."""
    lines = [
        f"**{_plain(paper.title)}**",
        "",
        "| row | run | metric | published | ours | 95 % interval | difference |",
    ]
    lines.append("|---|---|---|---:|---:|---:|---:|")
    for one in rows:
        for cell in one.cells:
            lines.append(f"| {' | '.join(map(_plain, _texts(one, cell)))} |")
    return "\n".join([*lines, "", *(f"{_plain(line)}  " for line in (*notes(rows), *_differs(rows)))]) + "\n"


def to_latex(paper: Paper, rows: Sequence[MatchedRow]) -> str:
    """Return a table for a paper: booktabs, everything escaped, what differs as comments before it."""
    head = ["row", "run", "metric", "published", "ours", "95 % interval", "difference"]
    lines = [[escape(text) for text in _texts(one, cell)] for one in rows for cell in one.cells]
    comments = [paper.title, *notes(rows), *_differs(rows)]
    return tabular("lllrrrr", [escape(text) for text in head], lines, comments)


def _texts(one: MatchedRow, cell: Cell) -> list[str]:
    run = "not run" if one.run is None else one.run.resolve().name
    numbers = (published_text(one.row, cell), number(cell.ours), interval(cell), difference(one, cell))
    return [one.row.name, run, cell.metric, *numbers]


def _differs(rows: Sequence[MatchedRow]) -> list[str]:
    return [
        f"{one.row.name}, {one.run.resolve().name}: {line}" for one in rows if one.run for line in one.notes
    ]


def _plain(text: str) -> str:
    return text.replace("|", "\\|")


EXPORTS: dict[str, Callable[[Paper, Sequence[MatchedRow]], str]] = {
    "csv": to_csv,
    "latex": to_latex,
    "markdown": to_markdown,
}
