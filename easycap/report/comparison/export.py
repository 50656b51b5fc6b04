"""The table of runs as CSV, LaTeX and Markdown, all columns of the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

from easycap.report.comparison.columns import DIFFERENT, TEXT_KINDS, Cell, Column, columns, names
from easycap.report.comparison.runs import Comparison
from easycap.report.numbers import SCALE_NOTE

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    DIFFERENT: r"$\neq$",
    "–": "--",
    "×": r"$\times$",
}


def to_csv(comparison: Comparison) -> str:
    """Return the table with numbers as in result.json (1.0 is CIDEr 100, bytes, seconds); each score has columns
    for its interval, its signature, and in what its terms differ from most runs'."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    table = [names(comparison), *columns(comparison)]
    writer.writerow(head for column in table for head in _heads(column))
    for place, run in enumerate(comparison.runs):
        signatures = {m: (comparison.score(run, m) or {}).get("signature", "") for m in comparison.metrics}
        writer.writerow(value for column in table for value in _values(column, place, signatures))
    return text.getvalue()


def _heads(column: Column) -> list[str]:
    if column.kind != "score":
        return [column.key]
    return [column.key, *(f"{column.key} {part}" for part in ("low", "high", "signature", "differs"))]


def _values(column: Column, place: int, signatures: dict[str, str]) -> list[object]:
    cell = column.cells[place]
    if column.kind == "score":
        numbers = ["" if number is None else number for number in (cell.number, cell.low, cell.high)]
        return [*numbers, signatures[column.key], cell.why]
    if column.kind == "cost":
        return ["" if cell.number is None else cell.number]
    return [cell.text]


def to_markdown(comparison: Comparison) -> str:
    """Return the table in GitHub's Markdown, scores ×100 with their intervals, followed by what it says and how."""
    table = [names(comparison), *columns(comparison)]
    lines = [_row([_markdown(column.title) for column in table])]
    lines.append(_row(["---" if column.kind in TEXT_KINDS else "---:" for column in table]))
    for place in range(len(comparison.runs)):
        lines.append(_row([_markdown(_scored(column.cells[place])) for column in table]))
    return "\n".join([*lines, "", *(f"{_markdown(line)}  " for line in _footer(comparison))]) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    text = " ".join(text.split())
    for character in "\\`*_[]|~$":
        text = text.replace(character, f"\\{character}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def to_latex(comparison: Comparison) -> str:
    """Return the table for a paper: booktabs, everything escaped, scores ×100 with small intervals."""
    table = [names(comparison), *columns(comparison)]
    align = "".join("l" if column.kind in TEXT_KINDS else "r" for column in table)
    comments = [f"% {line}" for line in _footer(comparison)]
    rows = [[_latex_cell(column.cells[place]) for column in table] for place in range(len(comparison.runs))]
    body = [" & ".join(row) + r" \\" for row in rows]
    head = " & ".join(_latex(column.title) for column in table) + r" \\"
    lines = [r"% needs \usepackage{booktabs}", *comments, rf"\begin{{tabular}}{{{align}}}", r"\toprule"]
    return "\n".join([*lines, head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_cell(cell: Cell) -> str:
    mark = rf" {_LATEX[DIFFERENT]}" if cell.why and cell.number is not None else ""
    interval = rf" {{\scriptsize {_latex(cell.interval)}}}" if cell.interval else ""
    return _latex(cell.text) + interval + mark


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def _scored(cell: Cell) -> str:
    interval = f" ({cell.interval})" if cell.interval else ""
    return cell.text + interval + (f" {DIFFERENT}" if cell.why and cell.number is not None else "")


def _footer(comparison: Comparison) -> list[str]:
    lines = [f"Split {comparison.split}. {SCALE_NOTE} In brackets or small: 95 % intervals over its images."]
    lines += [f"Signature: {terms.signature}" for terms in comparison.terms.values()]
    for metric, terms in comparison.terms.items():
        for number, why in terms.reasons.items():
            lines.append(f"{DIFFERENT} {metric} of {comparison.runs[number - 1].name}: {why}")
    lines += [f"Made by: {command}" for command in comparison.commands]
    return [" ".join(line.split()) for line in lines]


EXPORTS: dict[str, Callable[[Comparison], str]] = {
    "csv": to_csv,
    "latex": to_latex,
    "markdown": to_markdown,
}
