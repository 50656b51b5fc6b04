"""Runs beside the published rows they stand for, and in what they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easycap.report.comparison.settings import flat
from easycap.report.numbers import NOTHING, metric_order
from easycap.report.published.placing import overrides, recipe_of, rows_named, rows_of, stated_differences
from easycap.report.published.rows import Paper, Row
from easycap.report.published.splits import check_split, decoding_of, what_is_missing
from easycap.report.reading import read_config, read_result, read_status
from easycap.report.recipe import recipe
from easycap.report.scores import score_of

# What a published score of coco-caption stands on, as a signature says it.
_USUAL_TERMS = {"tok": "ptb", "df": "refs", "eos": "no", "reflen": "closest"}
# Published splits that runs can be scored on: (data, split, images).
_SPLITS = {
    "Karpathy test": ("coco_karpathy", "test", 5000),
    "Flickr8k test": ("flickr8k", "test", 1000),
    "Flickr30k test": ("flickr30k", "test", 1000),
}
# Choices that change nothing that is computed.
_NO_CHANGE = ("experiment", "seed", "device", "resume", "tracking", "hydra", "sweep", "launcher")
_PLACES = (
    "data.root",
    "data.cache",
    "data.workers",
    "trainer.workers",
    "encoder.weights",
    "encoder.features",
)


@dataclass(frozen=True)
class Cell:
    """One metric of a row and a run, all numbers ×100; `difference` is ours less the published, None where that is
    unchecked or ours is missing; `within` says that the published one lies in our interval, and nothing else is known
    to differ."""

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
    """A published row beside a run; `run` None: no run stands for it. `made_of` is the run in a few words, `missing`
    says how it comes by the scores it lacks.

    With `other_data` the scores are of other images, or of fewer: their difference says nothing of the models.
    """

    row: Row
    cells: tuple[Cell, ...]
    run: Path | None = None
    state: str = ""
    made_of: str = ""
    other_data: bool = False
    differs: tuple[str, ...] = ()
    missing: str = ""


def beside(
    paper: Paper, runs: Sequence[Path], given: Sequence[tuple[str, Path]] = (), *, split: str
) -> tuple[list[Beside], list[str]]:
    """Return every row of the paper, once for each run that stands for it, or once without; and why runs are left out.

    A run stands for the rows whose recipe, or one near it, its command names; `given` (name of a row, or name@split
    where several splits have one of that name; run) says it for others. Raises `ValueError` for a row that is not
    there, for a split that no run has scores of, and if all `runs` would be left out.
    """
    check_split(split, list(dict.fromkeys([*runs, *(run for _, run in given)])))
    found: dict[int, list[Path]] = {}
    left_out: list[str] = []
    for run in runs:
        try:
            places = rows_of(paper, run)
        except ValueError as error:
            left_out.append(str(error))
            continue
        for place in _of_its_data(paper, places, run):
            found.setdefault(place, []).append(run)
    if left_out and not found:
        raise ValueError(left_out[0])
    for name, run in given:
        for place in rows_named(paper, name):
            found.setdefault(place, []).append(run)
    rows = [
        one
        for place, row in enumerate(paper.rows)
        for one in ([_beside(row, run, split) for run in found.get(place, [])] or [_alone(row)])
    ]
    return rows, left_out


def _of_its_data(paper: Paper, places: Sequence[int], run: Path) -> list[int]:
    """Of rows of several data those of the run's, else of the first row's; and all that no run can be scored on."""
    data = flat(read_config(run)).get("data")
    of = {place: _SPLITS.get(paper.rows[place].split, (None,))[0] for place in places}
    wanted = data if data in of.values() else of[places[0]]
    return [place for place in places if of[place] in (wanted, None)]


def _alone(row: Row) -> Beside:
    return Beside(row, tuple(Cell(metric, row.scores[metric]) for metric in metric_order(row.scores)))


def _beside(row: Row, run: Path, split: str) -> Beside:
    config, result = read_config(run), read_result(run) or {}
    settings = _settings(config, split)
    scores = {metric: score_of(result, split, metric) for metric in metric_order(row.scores)}
    data = _data(row, settings, split, [score for score in scores.values() if score])
    known = (
        *data,
        *_recipe(run, row, settings),
        *stated_differences(row, settings),
        *_features(settings),
        *(f"published: {text}" for text in row.differs),
    )
    cells = tuple(_cell(row, metric, score, alike=not known) for metric, score in scores.items())
    made_of = ", ".join(choice for _, choice in recipe(config))
    return Beside(
        row,
        cells,
        run,
        read_status(run).state,
        f"{made_of}; {_decoding(settings)}; seed {config.get('seed', NOTHING)}",
        bool(data),
        (*known, *_terms(cells)),
        what_is_missing(run, split, result, [metric for metric, score in scores.items() if score is None]),
    )


def _cell(row: Row, metric: str, score: Mapping[str, Any] | None, *, alike: bool) -> Cell:
    published = row.scores[metric]
    if score is None:
        return Cell(metric, published)
    ours, low, high = (
        None if score.get(key) is None else 100 * score[key] for key in ("value", "low", "high")
    )
    signature = str(score.get("signature", ""))
    alike = alike and row.checked and not _odd_terms(signature)
    within = alike and None not in (low, high) and low <= published <= high
    difference = ours - published if row.checked else None
    return Cell(metric, published, ours, low, high, difference, within, signature)


def _settings(config: Mapping[str, Any], split: str) -> dict[str, str]:
    """The run's settings; a split like test@beam,num_beams=3 has a way of decoding of its own."""
    settings = flat(config)
    decoding = decoding_of(split)
    if decoding is None:
        return settings
    settings = {key: value for key, value in settings.items() if key.split(".")[0] != "decoding"}
    return settings | flat({"decoding": decoding})


def _decoding(settings: Mapping[str, str]) -> str:
    beams = settings.get("decoding.num_beams")
    return f"{settings.get('decoding', NOTHING)}{f' {beams}' if beams else ''}"


def _data(
    row: Row, settings: Mapping[str, str], split: str, scores: Sequence[Mapping[str, Any]]
) -> list[str]:
    data, its_split, images = _SPLITS.get(row.split, (None, None, None))
    if (settings.get("data"), split.partition("@")[0]) != (data, its_split):
        return [f"scored on {settings.get('data', NOTHING)} {split}, published on {row.split}"]
    counts = {_parts(str(score.get("signature"))).get("images", str(images)) for score in scores}
    return [f"scored on {count} images, published on {images}" for count in counts if count != str(images)]


def _features(settings: Mapping[str, str]) -> list[str]:
    """Features made elsewhere are whatever a file holds."""
    if settings.get("encoder") != "precomputed":
        return []
    return [f"features of {settings.get('encoder.features')}, not known to be the published ones"]


def _recipe(run: Path, row: Row, settings: Mapping[str, str]) -> list[str]:
    """That it was another recipe, or none, and what was typed beside it, but for the data (see `_data`)."""
    trained = recipe_of(run)
    lines = []
    if trained is None or trained != row.recipe:
        other = f"not with experiment={row.recipe}" if row.recipe else "no recipe of this row"
        lines.append(f"trained with experiment={trained or 'null'}, {other}")
        if not row.settings:
            lines.append("what else differs is unknown: the row states no settings")
    no_change = (*_NO_CHANGE, *_PLACES, "data")
    if settings.get("objective") == "scst":
        no_change += ("init_from",)  # as its recipes demand
    typed = [
        f"{key}={value}"
        for key, value in overrides(run)
        if key not in no_change and key.split(".")[0] not in _NO_CHANGE
    ]
    if typed:
        lines.append(f"{'changed in the recipe' if trained else 'set'}: {' '.join(typed)}")
    return lines


def _terms(cells: Sequence[Cell]) -> list[str]:
    """Where a signature says something else than coco-caption does, once for all metrics it is true of."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        for text in _odd_terms(cell.signature):
            found.setdefault(text, []).append(cell.metric)
    return [
        f"{', '.join(metrics)} on other terms than coco-caption's: {text}" for text, metrics in found.items()
    ]


def _odd_terms(signature: str) -> list[str]:
    parts = _parts(signature)
    odd = [
        f"{key}:{parts[key]}"
        for key, usual in _USUAL_TERMS.items()
        if not parts.get(key, usual).startswith(usual)
    ]
    return odd + [f"{key}:{parts[key]}" for key in ("partial", "tags", "draft") if key in parts]


def _parts(signature: str) -> dict[str, str]:
    return dict(part.partition(":")[::2] for part in signature.split("|")[1:])
