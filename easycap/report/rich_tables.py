"""Tables for the terminal: the scores of one run, and the list of runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from easycap.report.recipe import choice, image_tokens, pretrained_captioner
from easycap.report.scores import (
    HEADLINE,
    TAG_HEADLINE,
    Cell,
    ScoreTable,
    main_split,
    mapping,
    oracle_mark,
    score_of,
    score_tables,
)
from easycap.runs.reading import (
    find_runs,
    last_step,
    read_config,
    read_result,
    read_status,
)
from easycap.utils import text as numbers
from easycap.utils.console import console

STATE_STYLES = {
    "completed": "green",
    "running": "cyan",
    "failed": "red",
    "interrupted": "yellow",
    "killed": "yellow",
    "broken": "red",
}
# Widths of the score table's columns: the longest baseline's name, a score with its interval.
_FIRST_COLUMN, _SCORE_COLUMN = 35, 20
_NUMBERS = ("steps", HEADLINE, "truth", "time")
# From this many characters on: so many columns. The run's name alone has sixty.
_LAYOUTS = (
    (170, ("run", "status", "data", "encoder", "image tokens", "decoder", *_NUMBERS, "started")),
    (105, ("run", "status", *_NUMBERS)),
    (0, ("run", "status", HEADLINE)),
)


@dataclass(frozen=True)
class RunSummary:
    """One line of the list of runs; one without a readable config says why in `problem`."""

    folder: Path
    state: str
    started: str | None = None
    config: Mapping[str, Any] | None = None
    steps: int | None = None
    result: Mapping[str, Any] | None = None
    seconds: float | None = None
    problem: str = ""


def scores_table(result: Mapping[str, Any]) -> Table:
    """Return a result's scores ×100 with 95 % intervals, by split, with CIDEr-D's baselines."""
    scores, baselines = score_tables(result)
    table = Table(box=box.SIMPLE_HEAD, caption=_caption(scores), caption_justify="left", padding=(0, 1, 0, 0))
    table.add_column("metric", no_wrap=True)
    for split in scores.columns:
        table.add_column(split)
    for name, cells in scores.rows:
        table.add_row(name, *map(_text, cells))
    _add_baselines(table, scores.columns, baselines)
    return table


def scores_tables(result: Mapping[str, Any], splits: Sequence[str], *, width: int) -> list[Table]:
    """Return the scores of `splits` as `scores_table` does, in as many tables as it takes to fit `width` characters."""
    tables: list[list[str]] = []
    group: list[str] = []
    used = _FIRST_COLUMN
    for split in splits:
        needed = max(len(split), _SCORE_COLUMN) + 2
        if group and used + needed > width:
            tables.append(group)
            group, used = [], _FIRST_COLUMN
        group, used = [*group, split], used + needed
    return [scores_table(_of_splits(result, group)) for group in [*tables, group]]


def _of_splits(result: Mapping[str, Any], splits: Sequence[str]) -> dict[str, Any]:
    parts = {name: mapping(result, name) for name in ("scores", "baselines")}
    return {name: {s: part[s] for s in splits if s in part} for name, part in parts.items()}


def runs_table(runs: Sequence[RunSummary], *, width: int | None = None) -> Table:
    """Return the table of `runs`, in their order, with as many columns as fit `width` characters (else the
    terminal); in a narrow one only a run's name says its recipe.
    """
    table = Table(box=box.SIMPLE_HEAD, caption=_problems(runs), caption_justify="left", padding=(0, 1, 0, 0))
    columns = next(columns for least, columns in _LAYOUTS if (width or console().width) >= least)
    for column in columns:
        number = column in _NUMBERS
        # A run's name is there to be copied: it is never broken.
        whole = number or column == "run"
        table.add_column(column, justify="right" if number else "left", no_wrap=whole, overflow="fold")
    for summary in runs:
        row = _run_row(summary)
        table.add_row(*(row.get(column, "") for column in columns))
    return table


def list_runs(*roots: Path) -> list[RunSummary]:
    """Return the runs under `roots` (three folders deep, a root itself too), oldest first."""
    return sorted((summarise(run) for root in roots for run in find_runs(root)), key=_age)


def summarise(folder: Path) -> RunSummary:
    """Return the line of one run without reading its curves and samples."""
    try:
        status = read_status(folder)
    except (ValueError, OSError) as error:
        return RunSummary(folder, "broken", problem=str(error))
    try:
        config = read_config(folder)
        result, steps = read_result(folder), last_step(folder)
    except (ValueError, OSError) as error:  # a run that failed at once has no config yet
        return RunSummary(folder, status.state, status.started, problem=status.error or str(error))
    seconds = mapping(result, "cost").get("wall_seconds", status.seconds)
    return RunSummary(folder, status.state, status.started, config, steps, result, seconds)


def _run_row(summary: RunSummary) -> dict[str, Text]:
    state = Text(summary.state, style=STATE_STYLES.get(summary.state, ""))
    row = {"run": Text(summary.folder.resolve().name), "status": state}
    if summary.config is None:
        return row | {"started": Text(numbers.time_text(summary.started))}
    values = {group: choice(summary.config, group) for group in ("data", "encoder", "decoder")}
    values["image tokens"] = image_tokens(summary.config)
    if (model := pretrained_captioner(summary.config)) is not None:  # one whole in the place of parts
        values |= {"encoder": model, "image tokens": numbers.NOTHING, "decoder": numbers.NOTHING}
    if summary.config.get("task") == "tags":
        values |= {"image tokens": numbers.NOTHING, "decoder": f"tagger {choice(summary.config, 'tagger')}"}
    values["steps"] = numbers.NOTHING if summary.steps is None else f"{summary.steps:,}"
    split = main_split(summary.result or {})
    mean_precision = score_of(summary.result, split, TAG_HEADLINE)
    for metric in (HEADLINE, "truth"):
        score = score_of(summary.result, split, metric)
        values[metric] = numbers.score_text(score["value"]) + oracle_mark(score) if score else numbers.NOTHING
    if values[HEADLINE] == numbers.NOTHING and mean_precision:
        values[HEADLINE] = f"{TAG_HEADLINE} {numbers.score_text(mean_precision['value'])}"
    values["time"] = numbers.duration_text(summary.seconds)
    values["started"] = numbers.time_text(summary.started)
    return row | {column: Text(value) for column, value in values.items()}


def _problems(runs: Sequence[RunSummary]) -> str:
    problems = (f"{run.folder.resolve().name}: {run.problem}" for run in runs if run.problem)
    return "\n".join([numbers.SCALE_NOTE, *problems])


def _age(summary: RunSummary) -> float:
    try:
        return datetime.fromisoformat(summary.started or "").timestamp()
    except ValueError:
        return summary.folder.stat().st_mtime


def _add_baselines(table: Table, splits: Sequence[str], baselines: Mapping[str, ScoreTable]) -> None:
    """One row per baseline, one column per split; of its metrics the headline's alone."""
    found: dict[str, dict[str, Text]] = {}
    for split, scores in baselines.items():
        for label, cells in scores.rows:
            for metric, cell in zip(scores.columns, cells, strict=True):
                if metric == HEADLINE:  # the report has the others
                    found.setdefault(label, {})[split] = _text(cell)
    table.add_section()
    for label, by_split in found.items():
        row = (by_split.get(split, Text("")) for split in splits)
        table.add_row(Text(f"{HEADLINE}, {label}"), *row)


def _text(cell: Cell) -> Text:
    if cell.absent:
        return Text("not measured", style="dim")
    text = Text(f"{cell.text:>5}")  # 102.3 and 9.2 stand under each other
    return text.append(f"  {cell.interval}", style="dim") if cell.interval else text


def _caption(scores: ScoreTable) -> str:
    lines: Iterable[str] = (numbers.SCALE_NOTE, *(f"Not measured: {reason}" for reason in scores.absent))
    return "\n".join(lines)
