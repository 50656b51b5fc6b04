"""Published rows and runs as CSV and Markdown, a line per row, run and metric."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from easycap.report.published.beside import Beside
from easycap.report.published.rows import Paper
from easycap.report.published.terminal import difference, interval, notes, number, published_text

_NUMBERS = ("published", "ours", "low", "high", "difference")


def to_csv(paper: Paper, rows: Sequence[Beside]) -> str:
    """Return all numbers ×100 with their sources, signatures and what differs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ("row", "recipe", "split", "run", "metric", *_NUMBERS)
    writer.writerow((*head, "checked", "sources", "source", "notes", "differs", "signature"))
    for one in rows:
        row = one.row
        run = "not run" if one.run is None else one.run.resolve().name
        about = (str(row.checked).lower(), row.sources, row.source, row.remarks, "; ".join(one.differs))
        for cell in one.cells:
            values = ["" if (value := getattr(cell, key)) is None else round(value, 4) for key in _NUMBERS]
            writer.writerow(
                (row.name, row.recipe, row.split, run, cell.metric, *values, *about, cell.signature)
            )
    return text.getvalue()


def to_markdown(paper: Paper, rows: Sequence[Beside]) -> str:
    """Return a table in GitHub's Markdown, followed by what the numbers mean and in what runs differ."""
    lines = [
        f"**{_plain(paper.title)}**",
        "",
        "| row | run | metric | published | ours | 95 % interval | difference |",
    ]
    lines.append("|---|---|---|---:|---:|---:|---:|")
    for one in rows:
        run = "not run" if one.run is None else one.run.resolve().name
        for cell in one.cells:
            texts = (published_text(one.row, cell), number(cell.ours), interval(cell), difference(one, cell))
            lines.append(f"| {' | '.join(map(_plain, (one.row.name, run, cell.metric, *texts)))} |")
    differs = [
        f"{one.row.name}, {one.run.resolve().name}: {line}" for one in rows if one.run for line in one.differs
    ]
    return "\n".join([*lines, "", *(f"{_plain(line)}  " for line in (*notes(rows), *differs))]) + "\n"


def _plain(text: str) -> str:
    return text.replace("|", "\\|")


EXPORTS: dict[str, Callable[[Paper, Sequence[Beside]], str]] = {"csv": to_csv, "markdown": to_markdown}
