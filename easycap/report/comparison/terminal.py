"""The table of runs for the terminal, with as many columns as it is wide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.table import Table
from rich.text import Text

from easycap.report.comparison.columns import DIFFERENT, TEXT_KINDS, Cell, Column, columns
from easycap.report.comparison.effects import front_of
from easycap.report.comparison.hints import hints
from easycap.report.comparison.read_runs import Comparison
from easycap.report.comparison.run_names import short_names
from easycap.report.comparison.set_scores import SetTable
from easycap.report.comparison.settings import SEED
from easycap.report.group_scores import WHOLE
from easycap.report.rich_tables import STATE_STYLES
from easycap.utils.console import console
from easycap.utils.text import COSTS, SCALE_NOTE

# Costs in the order in which a narrow terminal gives them up, first those that stay longest.
_COST_ORDER = (
    "flops_per_caption",
    "wall_seconds",
    "images_per_second",
    "peak_memory_bytes",
    "total_parameters",
    "trainable_parameters",
    "train_seconds",
)
_NAME = "run"  # the column of names
_GAP = 2  # characters between columns
_FEW = 4
_LISTED = 8  # reasons or problems listed before "and n more"


def comparison_table(comparison: Comparison, *, width: int | None = None) -> tuple[Table, list[str]]:
    """Return the table in at most `width` characters (else the terminal's), and the columns left out of it."""
    everything = [_short_names(comparison), *columns(comparison)]
    shown = _fitting(everything, width or console().width, len(str(len(comparison.runs))))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("#", justify="right", no_wrap=True)
    for column in shown:
        justify: Literal["left", "right"] = "left" if column.kind in TEXT_KINDS else "right"
        table.add_column(
            _header(column),
            justify=justify,
            no_wrap=column.kind not in ("setting", "following"),
            overflow="fold",
        )
    for index, run in enumerate(comparison.runs):
        texts = {column.key: _text(column, column.cells[index]) for column in shown}
        if comparison.score(run, comparison.metrics[0]) is None and "status" not in texts:
            texts[comparison.metrics[0]] = _state(run.state)
        table.add_row(Text(str(run.number)), *texts.values())
    return table, [column.title for column in everything if column not in shown and column.key != _NAME]


def _short_names(comparison: Comparison) -> Column:
    """The runs' names as the page has them."""
    return Column("run", _NAME, _NAME, tuple(map(Cell, short_names([run.name for run in comparison.runs]))))


def set_table(found: SetTable, *, width: int) -> tuple[Table, list[str]]:
    """Return one metric on a set of images in at most `width` characters, and the columns that have no room.

    A column is a run; where the runs have no room, but the groups have, it is a group.
    """
    runs = [f"#{run.number}" for run, _ in found.rows]
    by_value = _Grid(
        found.metric,
        (found.field or "images", "images"),
        runs,
        [
            ([value, images], [cells[index] for _, cells in found.rows])
            for index, (value, images) in enumerate(found.columns)
        ],
    )
    by_run = _Grid(
        found.metric,
        ("#",),
        [f"{value}\n{images} images" for value, images in found.columns],
        [([name], list(cells)) for name, (_, cells) in zip(runs, found.rows, strict=True)],
    )
    fits = len(by_value.fitting(width)) == len(runs) or len(by_run.fitting(width)) < len(found.columns)
    return (by_value if fits else by_run).table(found.title, width)


@dataclass(frozen=True)
class _Grid:
    """Cells under `columns`, each line after its texts under `heads`."""

    metric: str
    heads: tuple[str, ...]
    columns: list[str]
    lines: list[tuple[list[str], list[Cell]]]

    def fitting(self, width: int) -> list[int]:
        """The indices of the columns that fit, from the left; one at least."""
        firsts = [*zip(*(texts for texts, _ in self.lines), strict=True)]
        room = width - sum(
            max(map(len, [head, *texts])) + _GAP for head, texts in zip(self.heads, firsts, strict=True)
        )
        chosen: list[int] = []
        for index, column in enumerate(self.columns):
            cells = [_plain(cells[index]) for _, cells in self.lines]
            room -= max(map(len, [*column.split("\n"), *cells])) + _GAP
            if chosen and room < 0:
                break
            chosen.append(index)
        return chosen

    def table(self, title: str, width: int) -> tuple[Table, list[str]]:
        """The table in `width` characters, and the columns left out."""
        chosen = self.fitting(width)
        table = Table(
            box=box.SIMPLE_HEAD,
            title=f"{title}: {self.metric}",
            title_justify="left",
            padding=(0, 1, 0, 0),
        )
        for head in self.heads:
            table.add_column(head, justify="right" if head in ("#", "images") else "left", no_wrap=True)
        for index in chosen:
            table.add_column(self.columns[index], justify="right", no_wrap=True)
        for number, (texts, cells) in enumerate(self.lines, start=1):
            table.add_row(
                *map(Text, texts),
                *(_score_text(cells[index]) for index in chosen),
                end_section=texts[0] != WHOLE and number == len(self.lines) - 1,
            )
        left_out = [column for index, column in enumerate(self.columns) if index not in chosen]
        return table, [column.split("\n")[0] for column in left_out]


def notes(comparison: Comparison) -> list[str]:
    """Return the lines a reader of the table needs: scale, fronts, marks, what failed, what has not started."""
    lines = [f"{SCALE_NOTE} With 95 % intervals over the images of {comparison.split}."]
    if front := _front(comparison):
        lines.append(front)
    lines += [f"#{run.number} is {run.folder}" for run in comparison.runs if run.number <= _named(comparison)]
    marks = [
        f"{DIFFERENT} {metric} of #{number} is computed under a different protocol than most: {why}"
        for metric, protocol in comparison.protocols.items()
        for number, why in protocol.reasons.items()
    ]
    lines += _few(marks)
    lines += hints(comparison)
    lines += _few([f"#{run.number} {run.state}: {run.problem}" for run in comparison.runs if run.problem])
    if comparison.waiting:
        lines += _few([f"not started: {overrides}" for overrides in comparison.waiting])
    return lines


def _named(comparison: Comparison) -> int:
    """So many runs are named by their folder: all of a few, else the best alone."""
    return len(comparison.runs) if len(comparison.runs) <= _FEW else 1


def _front(comparison: Comparison) -> str:
    metric = comparison.metrics[0]
    for cost in _COST_ORDER[:2]:
        values = {run.cost(cost) for run in comparison.comparable(metric)} - {None}
        if len(values) > 1:
            best = ", ".join(f"#{number}" for number in front_of(comparison, metric, cost))
            return f"Best trade-offs: no other run has more {metric} for less {COSTS[cost][0]}: {best}"
    return ""


def _few(lines: Sequence[str]) -> list[str]:
    more = [f"... and {len(lines) - _LISTED} more of that kind"] if len(lines) > _LISTED else []
    return [*lines[:_LISTED], *more]


def _fitting(everything: Sequence[Column], width: int, digits: int) -> list[Column]:
    """The columns that fit, chosen by importance; the first score always stays."""
    chosen: list[Column] = []
    room = width - digits - 2 * _GAP
    for column in _by_importance(everything):
        needed = _width(column) + _GAP
        if needed <= room or not chosen:
            chosen.append(column)
            room -= needed
    return [column for column in everything if column in chosen]


def _by_importance(everything: Sequence[Column]) -> list[Column]:
    """The first score; what a run is, by its first three settings; its main cost; its name; then everything else.

    A run without a score has its state in the score's place, so the column of states may go.
    """
    scores = [column for column in everything if column.kind == "score"]
    costs = sorted(
        (column for column in everything if column.kind == "cost"), key=lambda c: _COST_ORDER.index(c.key)
    )
    marks = [column for column in everything if column.kind == "setting"]
    state = [column for column in everything if column.kind == "run" and column.key != _NAME]
    name = [column for column in everything if column.key == _NAME]
    same_seed = [column for column in marks if column.key == SEED and column.is_constant]
    marks = [column for column in marks if column not in same_seed]
    following = [column for column in everything if column.kind == "following"]
    last = [*scores[1:], *state, *same_seed, *following, *costs[2:]]
    return [*scores[:1], *marks[:3], *costs[:1], *name, *marks[3:], *costs[1:2], *last]


def _width(column: Column) -> int:
    cells = max((len(_plain(cell)) for cell in column.cells), default=0)
    return max(cells, *(len(line) for line in _header(column).split("\n")))


def _header(column: Column) -> str:
    if column.kind == "cost":
        return column.title.replace(" ", "\n", 1)
    return column.title.replace(".", ".\n") if column.kind in ("setting", "following") else column.title


def _plain(cell: Cell) -> str:
    return " ".join(part for part in (cell.text, cell.interval) if part) + (DIFFERENT if cell.why else "")


def _text(column: Column, cell: Cell) -> Text:
    if column.key == "status":
        return _state(cell.text)
    return _score_text(cell) if column.kind == "score" else Text(cell.text)


def _score_text(cell: Cell) -> Text:
    text = Text(cell.text)
    text.append(f" {cell.interval}" if cell.interval else "", style="dim")
    return text.append(DIFFERENT if cell.why else "", style="yellow")


def _state(state: str) -> Text:
    return Text(state, style=STATE_STYLES.get(state, ""))
