"""Runs beside the published rows they stand for, and in what they differ."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from easycap.paths import config_dir
from easycap.registry import describe_choices
from easycap.report.comparison.settings import flat
from easycap.report.numbers import NOTHING, metric_order
from easycap.report.published.rows import Paper, Row
from easycap.report.reading import read_config, read_result, read_status
from easycap.report.recipe import recipe
from easycap.report.scores import score_of

# What a published score of coco-caption stands on, as a signature says it.
_USUAL_TERMS = {"tok": "ptb", "df": "refs", "eos": "no", "reflen": "closest"}
_KARPATHY = ("Karpathy test", "coco_karpathy", "test", 5000)
# Choices that change nothing that is computed.
_NO_CHANGE = ("experiment", "seed", "device", "resume", "tracking", "hydra", "sweep", "launcher")
_PLACES = ("data.root", "data.cache", "data.workers", "trainer.workers", "encoder.weights")


@dataclass(frozen=True)
class Cell:
    """One metric of a row and a run, all numbers ×100; `difference` is ours less the published, None where that is
    unchecked or ours is missing; `within` says that the published one lies in our interval."""

    metric: str
    published: float
    ours: float | None = None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    within: bool = False
    signature: str = ""


@dataclass(frozen=True)
class Beside:
    """A published row beside a run; `run` None: no run stands for it. `made_of` is the run in a few words.

    With `other_data` the scores are of other images, or of fewer: their difference says nothing of the models.
    """

    row: Row
    cells: tuple[Cell, ...]
    run: Path | None = None
    state: str = ""
    made_of: str = ""
    other_data: bool = False
    differs: tuple[str, ...] = ()


def beside(paper: Paper, runs: Sequence[Path], given: Mapping[Path, str], *, split: str) -> list[Beside]:
    """Return every row of the paper, once for each run that stands for it, or once without.

    A run stands for the rows whose recipe its command names; `given` {run: name of a row} says it for others. Raises
    `ValueError` for a row that is not there and for a run that stands for none.
    """
    found: dict[int, list[Path]] = {}
    for run in dict.fromkeys([*runs, *given]):
        rows = _rows_of(paper, run, given.get(run))
        for place in rows:
            found.setdefault(place, []).append(run)
    return [
        one
        for place, row in enumerate(paper.rows)
        for one in ([_beside(row, run, split) for run in found.get(place, [])] or [_alone(row)])
    ]


def _rows_of(paper: Paper, run: Path, name: str | None) -> list[int]:
    if name is not None:
        places = [place for place, row in enumerate(paper.rows) if row.name == name]
        if not places:
            names = {row.name for row in paper.rows}
            raise ValueError(f"--row {name!r}: no row has that name; {describe_choices(name, names)}")
        return places
    trained = recipe_of(run)
    places = [place for place, row in enumerate(paper.rows) if row.recipe and row.recipe == trained]
    if not places:
        recipes = sorted({row.recipe for row in paper.rows if row.recipe})
        what = f"experiment={trained}" if trained else "no experiment"
        raise ValueError(
            f"{run} was trained with {what}, which stands for no row of this paper (recipes that do: "
            f"{', '.join(recipes) or 'none'}); say which row it stands for: --row NAME {run}"
        )
    return places


def recipe_of(run: Path) -> str | None:
    """Return the recipe that a run's command names: its experiment=..., None without one."""
    values = [value for key, value in _overrides(run) if key == "experiment"]
    return values[-1] if values else None


def _overrides(run: Path) -> list[tuple[str, str]]:
    """What was typed after `easycap train`, as (key, value)."""
    words = shlex.split(read_status(run).command or "")
    pairs = (word.lstrip("+").partition("=") for word in words if "=" in word)
    return [(key, value) for key, _, value in pairs]


def _alone(row: Row) -> Beside:
    return Beside(row, tuple(Cell(metric, row.scores[metric]) for metric in metric_order(row.scores)))


def _beside(row: Row, run: Path, split: str) -> Beside:
    config, result = read_config(run), read_result(run) or {}
    settings = _settings(config, split)
    scores = {metric: score_of(result, split, metric) for metric in metric_order(row.scores)}
    data = _data(row, settings, split, [score for score in scores.values() if score])
    cells = tuple(_cell(row, metric, score, bool(data)) for metric, score in scores.items())
    made_of = ", ".join(choice for _, choice in recipe(config))
    differs = (*data, *_changes(run, row), *_stated(row, settings), *_terms(cells))
    return Beside(
        row,
        cells,
        run,
        read_status(run).state,
        f"{made_of}; {_decoding(settings)}; seed {config.get('seed', NOTHING)}",
        bool(data),
        differs,
    )


def _cell(row: Row, metric: str, score: Mapping[str, Any] | None, other_data: bool) -> Cell:
    published = row.scores[metric]
    if score is None:
        return Cell(metric, published)
    ours, low, high = (
        None if score.get(key) is None else 100 * score[key] for key in ("value", "low", "high")
    )
    comparable = row.checked and not other_data
    within = comparable and None not in (low, high) and low <= published <= high
    difference = ours - published if row.checked else None
    return Cell(metric, published, ours, low, high, difference, within, str(score.get("signature", "")))


def _settings(config: Mapping[str, Any], split: str) -> dict[str, str]:
    """The run's settings; a split like test@beam,num_beams=3 has a way of decoding of its own."""
    settings = flat(config)
    _, other, decoding = split.partition("@")
    if not other:
        return settings
    name, *changes = decoding.split(",")
    defaults = yaml.safe_load((config_dir() / "decoding" / f"{name}.yaml").read_text(encoding="utf-8"))
    settings = {key: value for key, value in settings.items() if key.split(".")[0] != "decoding"}
    settings |= flat({"decoding": defaults})
    return settings | {f"decoding.{key}": value for key, _, value in (c.partition("=") for c in changes)}


def _decoding(settings: Mapping[str, str]) -> str:
    beams = settings.get("decoding.num_beams")
    return f"{settings.get('decoding', NOTHING)}{f' {beams}' if beams else ''}"


def _data(
    row: Row, settings: Mapping[str, str], split: str, scores: Sequence[Mapping[str, Any]]
) -> list[str]:
    name, data, its_split, images = _KARPATHY
    if (row.split, settings.get("data"), split.partition("@")[0]) != (name, data, its_split):
        return [f"scored on {settings.get('data', NOTHING)} {split}, published on {row.split}"]
    counts = {_parts(str(score.get("signature"))).get("images", str(images)) for score in scores}
    return [f"scored on {count} images, published on {images}" for count in counts if count != str(images)]


def _changes(run: Path, row: Row) -> list[str]:
    """What was typed beside the recipe, but for the data (see `_data`); or that it was another recipe."""
    if row.recipe is None:
        return []
    if recipe_of(run) != row.recipe:
        return [f"trained with experiment={recipe_of(run) or 'null'}, not with experiment={row.recipe}"]
    typed = [
        f"{key}={value}"
        for key, value in _overrides(run)
        if key.split(".")[0] not in _NO_CHANGE and key not in ("data", *_PLACES)
    ]
    return [f"changed in the recipe: {' '.join(typed)}"] if typed else []


def _stated(row: Row, settings: Mapping[str, str]) -> list[str]:
    return [
        f"{key} {settings.get(key, NOTHING)}, published {value}"
        for key, value in row.settings.items()
        if settings.get(key) != value
    ]


def _terms(cells: Sequence[Cell]) -> list[str]:
    """Where a signature says something else than coco-caption does, once for all metrics it is true of."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        parts = _parts(cell.signature)
        odd = [
            f"{key}:{parts[key]}"
            for key, usual in _USUAL_TERMS.items()
            if not parts.get(key, usual).startswith(usual)
        ]
        odd += [f"partial:{parts['partial']}"] if "partial" in parts else []
        for text in odd:
            found.setdefault(text, []).append(cell.metric)
    return [
        f"{', '.join(metrics)} on other terms than coco-caption's: {text}" for text, metrics in found.items()
    ]


def _parts(signature: str) -> dict[str, str]:
    return dict(part.partition(":")[::2] for part in signature.split("|")[1:])
