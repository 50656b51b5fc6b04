"""Runs matched with the published rows they reproduce, and how they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easycap.errors import UserError
from easycap.report.comparison.settings import flat
from easycap.report.published import differences
from easycap.report.published.placing import other_ways, rows_named, rows_of, why_no_row
from easycap.report.published.rows import Paper, Row
from easycap.report.published.splits import check_split, decoding_of, what_is_missing
from easycap.report.recipe import origin, recipe
from easycap.report.scores import score_of
from easycap.runs.provenance import is_trained_here, known_config
from easycap.runs.reading import read_config, read_result, read_status
from easycap.utils.text import NOTHING, metric_order


@dataclass(frozen=True)
class Cell:
    """One metric of a row and a run, all numbers ×100; `difference` is ours less the published, None where that is
    unchecked or ours is missing; `within` says that the published one lies in our interval, and nothing else is known
    to differ.
    """

    metric: str
    published: float
    ours: float | None = None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    within: bool = False
    signature: str = ""


@dataclass(frozen=True)
class MatchedRow:
    """A published row and its run; `run` None: there is none. `made_of` is the run in a few words, `missing`
    says how it comes by the scores it lacks, `unknown` are stated settings that nobody knows of it.

    With `other_data` the scores are of other images, or of fewer: their difference says nothing about the models.
    """

    row: Row
    cells: tuple[Cell, ...]
    run: Path | None = None
    state: str = ""
    made_of: str = ""
    other_data: bool = False
    differs: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    missing: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what differs, and what is not known."""
        return (*self.differs, *([f"not known: {', '.join(self.unknown)}"] if self.unknown else []))


def match_runs(
    paper: Paper, runs: Sequence[Path], given: Sequence[tuple[str, Path]] = (), *, split: str
) -> tuple[list[MatchedRow], list[str]]:
    """Return every row of the paper, once for each run that stands for it, or once without; and why runs are left out.

    A run stands for the rows whose recipe, or one near it, its command names; `given` (name of a row, or name@split
    where several splits have one of that name; run) says it for others. Raises `UserError` for a row that is not
    there, for a split that no run has scores of, and if all `runs` would be left out.
    """
    check_split(split, list(dict.fromkeys([*runs, *(run for _, run in given)])))
    found: dict[int, list[Path]] = {}
    dropped: list[str] = []
    for run in runs:
        indices = rows_of(paper, run)
        if not indices:
            dropped.append(why_no_row(run))
        for index in _of_its_data(paper, indices, run):
            found.setdefault(index, []).append(run)
    if dropped and not found:
        raise UserError(f"{dropped[0]} {other_ways(paper, runs[0])}")
    for name, run in given:
        for index in rows_named(paper, name):
            found.setdefault(index, []).append(run)
    rows = [
        one
        for index, row in enumerate(paper.rows)
        for one in ([_matched(paper, row, run, split) for run in found.get(index, [])] or [_alone(row)])
    ]
    return rows, dropped


def _of_its_data(paper: Paper, indices: Sequence[int], run: Path) -> list[int]:
    """Of rows of several data those of the run's, else of the first row's; and all that no run can be scored on."""
    if not indices:
        return []
    data = differences.same_images(flat(read_config(run)).get("data"))
    of = {index: differences.data_of(paper.rows[index]) for index in indices}
    wanted = data if data in of.values() else of[indices[0]]
    return [index for index in indices if of[index] in (wanted, None)]


def _alone(row: Row) -> MatchedRow:
    return MatchedRow(row, tuple(Cell(metric, row.scores[metric]) for metric in metric_order(row.scores)))


def _matched(paper: Paper, row: Row, run: Path, split: str) -> MatchedRow:
    config, result = read_config(run), read_result(run) or {}
    config = known_config(config, result)
    settings = _settings(config, split)
    unknown = differences.unknown_settings(row, settings, result)
    scores = {metric: score_of(result, split, metric) for metric in metric_order(row.scores)}
    data = differences.of_data(row, settings, split, [score for score in scores.values() if score])
    known = (
        *data,
        *differences.of_recipe(run, row, settings, trained_here=is_trained_here(result)),
        *differences.of_settings(row, settings, unknown),
        *differences.of_features(settings),
        *(f"recipe: {text}" for text in paper.differs.get(differences.recipe_of(run) or "", ())),
        *(f"published: {text}" for text in row.differs),
    )
    cells = tuple(
        _cell(row, metric, score, alike=not known and not unknown) for metric, score in scores.items()
    )
    return MatchedRow(
        row,
        cells,
        run,
        read_status(run).state,
        _made_of(config, result, settings),
        bool(data),
        (*known, *differences.of_terms({cell.metric: cell.signature for cell in cells})),
        tuple(f"{key} (published {row.settings[key].strip('*')})" for key in unknown),
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
    alike = alike and row.checked and not differences.odd_terms(signature)
    within = alike and low is not None and high is not None and low <= published <= high
    difference = ours - published if row.checked and ours is not None else None
    return Cell(metric, published, ours, low, high, difference, within, signature)


def _settings(config: Mapping[str, Any], split: str) -> dict[str, str]:
    """The run's settings; a split like test@beam,num_beams=3 has a way of decoding of its own."""
    settings = flat(config)
    decoding = decoding_of(split)
    if decoding is None:
        return settings
    settings = {key: value for key, value in settings.items() if key.split(".")[0] != "decoding"}
    return settings | flat({"decoding": decoding})


def _made_of(config: Mapping[str, Any], result: Mapping[str, Any], settings: Mapping[str, str]) -> str:
    """The run in a few words; of one that was not trained here where it comes from, and no seed."""
    parts = ", ".join(text for _, text in (*recipe(config), *origin(result)))
    decoding = [_decoding(settings)] if "decoding" in settings else []
    here = is_trained_here(result)
    training = f"seed {config.get('seed', NOTHING)}" if here else "not trained with easycap"
    return "; ".join([parts, *decoding, training])


def _decoding(settings: Mapping[str, str]) -> str:
    beams = settings.get("decoding.num_beams")
    return f"{settings.get('decoding', NOTHING)}{f' {beams}' if beams else ''}"
