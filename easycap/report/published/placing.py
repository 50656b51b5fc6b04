"""Which published rows a run stands for: by its recipe, or by the name of a row that the user gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from easycap.errors import UserError
from easycap.registry import describe_choices
from easycap.report.comparison.settings import flat
from easycap.report.published.differences import of_settings, recipe_of
from easycap.report.published.rows import Paper, Row
from easycap.runs.find import shown
from easycap.runs.provenance import is_trained_here
from easycap.runs.reading import read_config, read_result
from easycap.utils.text import NOTHING

_CANDIDATES = 3


def rows_of(paper: Paper, run: Path) -> list[int]:
    """Return the indices of the rows whose recipe, or one near it, the run's command names."""
    trained = recipe_of(run)
    return [index for index, row in enumerate(paper.rows) if trained and trained in (row.recipe, *row.near)]


def rows_named(paper: Paper, name: str) -> list[int]:
    """Return the indices of the rows of that name, or of "name@split"; several are one row of several sources.

    Raises `UserError` if there are none, and if rows of several splits have that name.
    """
    indices = [index for index, row in enumerate(paper.rows) if name in (row.name, f"{row.name}@{row.split}")]
    splits = dict.fromkeys(paper.rows[index].split for index in indices)
    if not indices:
        raise UserError(f"--row {name!r}: no row has that name; {describe_choices(name, _names(paper.rows))}")
    if len(splits) > 1:
        whole = " or ".join(repr(f"{name}@{split}") for split in splits)
        raise UserError(f"--row {name!r}: rows of several splits have that name; say which: {whole}")
    return indices


def _names(rows: Iterable[Row]) -> list[str]:
    """The names of rows, each once, with its split where another row of that name has another one."""
    splits: dict[str, dict[str, None]] = {}
    for row in rows:
        splits.setdefault(row.name, {})[row.split] = None
    return [name if len(its) == 1 else f"{name}@{split}" for name, its in splits.items() for split in its]


def why_no_row(run: Path) -> str:
    """Say why `rows_of` has found none."""
    trained = recipe_of(run)
    if not is_trained_here(read_result(run) or {}):
        return f"{shown(run)} was not trained here, so it has no recipe and matches no row of this paper"
    if not trained:
        return (
            f"{shown(run)} was trained without a recipe (experiment=NAME), so it matches no row of this paper"
        )
    return f"{shown(run)} was trained with experiment={trained}, which matches no row of this paper"


def other_ways(paper: Paper, run: Path) -> str:
    """Name the recipes that stand for rows, and the rows that come nearest to a run."""
    recipes = {recipe for row in paper.rows for recipe in (row.recipe, *row.near) if recipe}
    return (
        f"(recipes that do: {', '.join(sorted(recipes)) or 'none'}); assign it to a row with --row NAME "
        f"{shown(run)}{_nearest(paper, flat(read_config(run)))}"
    )


def _nearest(paper: Paper, settings: Mapping[str, str]) -> str:
    """Name the rows that state the decoder of `settings`, with what these lack for the first of them."""
    same = [row for row in paper.rows if row.settings.get("decoder", NOTHING) == settings.get("decoder")]
    same.sort(key=lambda row: len(of_settings(row, settings)))
    if not same:
        return ""
    names = ", ".join(map(repr, _names(same)[:_CANDIDATES]))
    differences = ", ".join(of_settings(same[0], settings))
    return f" (rows of its decoder: {names}{f'; for the first: {differences}' if differences else ''})"
