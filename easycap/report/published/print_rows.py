"""Published rows and runs for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from easycap.report.comparison.columns import DIFFERENT
from easycap.report.published.matching import Cell, MatchedRow
from easycap.report.published.rows import Paper, Row
from easycap.utils.text import NOTHING

UNCHECKED, WITHIN = "?", "≈"
_INDENT = (0, 0, 0, 2)


def show(console: Console, paper: Paper, rows: Sequence[MatchedRow]) -> None:
    """Print all rows; if runs stand for some, first the others in a line each, then those as tables."""
    console.print(paper.title, style="bold")
    for line in notes(rows):
        console.print(line, style="dim")
    run = [one for one in rows if one.run]
    if run:
        console.print("\nnot run:", style="yellow")
        for one in rows:
            if not one.run:
                _print(console, f"{one.row.name} ({one.row.split}): {_published(one)}", "dim")
    for one in run or rows:
        console.print(f"\n{one.row.name}", style="bold")
        _print(console, _about(one.row), "dim")
        if one.run:
            _print_run(console, one)
        else:
            _print(console, f"not run: {_published(one)}", "yellow")


def _published(one: MatchedRow) -> str:
    return ", ".join(f"{cell.metric} {published_text(one.row, cell)}" for cell in one.cells)


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(Padding(Text(text, style), _INDENT, expand=False))


def _print_run(console: Console, one: MatchedRow) -> None:
    assert one.run is not None
    state = "" if one.state == "completed" else f" ({one.state})"
    console.print(f"  run: {one.run.resolve().name}{state}", soft_wrap=True)
    _print(console, f"ours: {one.made_of}")
    for line in one.differs:
        _print(console, f"differs: {line}")
    if one.unknown:
        _print(console, f"not known: {', '.join(one.unknown)}")
    if one.missing:
        _print(console, one.missing, "yellow")
    console.print(Padding(_table(one), _INDENT, expand=False))
    signatures = [cell.signature for cell in one.cells if cell.signature]
    if signatures:
        _print(console, f"signature: {signatures[0]}", "dim")


def notes(rows: Sequence[MatchedRow]) -> list[str]:
    """Return what a reader has to know of the numbers: scale, intervals, marks that are there."""
    lines = ["Scores are ×100; intervals are 95 % over our images, a difference is ours less the published."]
    if any(cell.within for one in rows for cell in one.cells):
        lines.append(f"{WITHIN} the published score lies within our interval.")
    if any(one.other_data for one in rows):
        lines.append(f"{DIFFERENT} computed on other images: the difference says nothing about the models.")
    if not all(one.row.checked for one in rows):
        lines.append(f"{UNCHECKED} quoted from memory and not checked: do not cite as the paper's.")
    return lines


def published_text(row: Row, cell: Cell) -> str:
    """Return a published score with the decimals it was printed with, marked where it is unchecked."""
    plain = f"{cell.published:.1f}"
    text = plain if float(plain) == cell.published else f"{cell.published:g}"
    return text + ("" if row.checked else UNCHECKED)


def number(value: float | None, *, sign: bool = False) -> str:
    """Return a score ×100 with one decimal, NOTHING where there is none."""
    return NOTHING if value is None else f"{value:+.1f}" if sign else f"{value:.1f}"


def interval(cell: Cell) -> str:
    """Return "low – high" of ours, empty where there is none."""
    return "" if cell.low is None else f"{number(cell.low)} – {number(cell.high)}"


def difference(one: MatchedRow, cell: Cell) -> str:
    """Return ours less the published, marked where that lies within our interval, and where the data differ."""
    mark = WITHIN if cell.within else DIFFERENT if one.other_data and cell.difference is not None else ""
    return f"{number(cell.difference, sign=True)} {mark}".rstrip()


def _about(row: Row) -> str:
    parts = [row.split, row.remarks, f"source: {row.source}" if row.checked else "unchecked"]
    return "; ".join(part for part in parts if part)


def _table(one: MatchedRow) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0))
    table.add_column("metric")
    for head in ("published", "ours", "95 % interval", "difference"):
        table.add_column(head, justify="right", no_wrap=True)
    for cell in one.cells:
        texts = (published_text(one.row, cell), number(cell.ours), interval(cell), difference(one, cell))
        table.add_row(cell.metric, *texts)
    return table
