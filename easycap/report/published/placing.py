"""Which published rows a run stands for: by its recipe, or by the name of a row that the user gives."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from easycap.registry import describe_choices
from easycap.report.comparison.settings import flat
from easycap.report.numbers import NOTHING
from easycap.report.published.rows import Paper, Row
from easycap.report.reading import read_config, read_status

_CANDIDATES = 3


def rows_of(paper: Paper, run: Path) -> list[int]:
    """Return the places of the rows whose recipe, or one near it, the run's command names.

    Raises `ValueError` if there are none, naming the recipes there are and the rows that come nearest.
    """
    trained = recipe_of(run)
    places = [place for place, row in enumerate(paper.rows) if trained in (row.recipe or NOTHING, *row.near)]
    if not places:
        raise ValueError(_why_no_row(paper, run, trained))
    return places


def rows_named(paper: Paper, name: str) -> list[int]:
    """Return the places of the rows of that name, or of "name@split"; several are one row of several sources.

    Raises `ValueError` if there are none, and if rows of several splits have that name.
    """
    places = [place for place, row in enumerate(paper.rows) if name in (row.name, f"{row.name}@{row.split}")]
    splits = dict.fromkeys(paper.rows[place].split for place in places)
    if not places:
        raise ValueError(
            f"--row {name!r}: no row has that name; {describe_choices(name, _names(paper.rows))}"
        )
    if len(splits) > 1:
        whole = " or ".join(repr(f"{name}@{split}") for split in splits)
        raise ValueError(f"--row {name!r}: rows of several splits have that name; say which: {whole}")
    return places


def _names(rows: Iterable[Row]) -> list[str]:
    """The names of rows, each once, with its split where another row of that name has another one."""
    splits: dict[str, dict[str, None]] = {}
    for row in rows:
        splits.setdefault(row.name, {})[row.split] = None
    return [name if len(its) == 1 else f"{name}@{split}" for name, its in splits.items() for split in its]


def recipe_of(run: Path) -> str | None:
    """Return the recipe that a run's command names: its experiment=..., None without one."""
    values = [value for key, value in overrides(run) if key == "experiment"]
    return values[-1] if values else None


def overrides(run: Path) -> list[tuple[str, str]]:
    """Return what was typed after `easycap train`, as (key, value)."""
    words = shlex.split(read_status(run).command or "")
    pairs = (word.lstrip("+").partition("=") for word in words if "=" in word)
    return [(key, value) for key, _, value in pairs]


def stated_differences(row: Row, settings: Mapping[str, str]) -> list[str]:
    """Return in which of the settings that a row states others differ; a stated "resnet101*" is any that begins so."""
    return [
        f"{key} {settings.get(key, NOTHING)}, published {value.rstrip('*')}"
        for key, value in row.settings.items()
        if not fnmatchcase(settings.get(key, NOTHING), value)
    ]


def _why_no_row(paper: Paper, run: Path, trained: str | None) -> str:
    recipes = {recipe for row in paper.rows for recipe in (row.recipe, *row.near) if recipe}
    what = f"experiment={trained}" if trained else "no experiment"
    return (
        f"{run} was trained with {what}, which stands for no row of this paper (recipes that do: "
        f"{', '.join(sorted(recipes)) or 'none'}); set it beside a row by --row NAME {shlex.quote(str(run))}"
        f"{_nearest(paper, flat(read_config(run)))}"
    )


def _nearest(paper: Paper, settings: Mapping[str, str]) -> str:
    """Name the rows that state the decoder of `settings`, with what these lack for the first of them."""
    same = [row for row in paper.rows if row.settings.get("decoder", NOTHING) == settings.get("decoder")]
    same.sort(key=lambda row: len(stated_differences(row, settings)))
    if not same:
        return ""
    names = ", ".join(map(repr, _names(same)[:_CANDIDATES]))
    differences = ", ".join(stated_differences(same[0], settings))
    return f" (rows of its decoder: {names}{f'; for the first: {differences}' if differences else ''})"
