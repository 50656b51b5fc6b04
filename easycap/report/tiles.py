"""The few numbers at the top of a report: first the score to cite, then its context and cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from easycap.report.scores import HEADLINE, TAG_HEADLINE, headline, main_split, mapping, oracle_mark, score_of
from easycap.runs.reading import RunFiles, series
from easycap.utils import text as numbers

# The line below each score.
_ABOUT = {
    HEADLINE: "against all references, as in papers",
    TAG_HEADLINE: "average precision, mean over the tags",
    "truth": "% of captions with two or more claims, all of them true",
    "F1@3": "of the three most likely tags",
}
_LOGGED = (f"val/{HEADLINE}", f"val/{TAG_HEADLINE}", "val/truth", "val/loss", "train/loss")


@dataclass(frozen=True)
class Tile:
    """One number with what it is called, its interval, and a line about it."""

    label: str
    value: str
    interval: str = ""
    about: str = ""


def tiles(files: RunFiles) -> list[Tile]:
    """Return the tiles of a run: of its scores and cost, or of its last validation while it has no score."""
    result = files.result or {}
    split = main_split(result)
    if split is None:
        return list(_validation(files))
    return [*_scores(result, split), *_cost(result)]


def _scores(result: Mapping[str, Any], split: str) -> Iterator[Tile]:
    first = headline(result)
    for metric in (first, "truth", *(("F1@3",) if first == TAG_HEADLINE else ())):
        if score := score_of(result, split, metric):
            value = numbers.score_text(score["value"], metric) + oracle_mark(score)
            yield Tile(f"{metric}, {split}", value, numbers.interval_text(score, metric), _ABOUT[metric])
    baselines = mapping(result, "baselines", split)
    keys = ("model_same_references", "reference_caption")
    values: list[Any] = [mapping(baselines, key, HEADLINE).get("value") for key in keys]
    model, reference = values
    if numbers.is_number(model) and numbers.is_number(reference) and reference > 0:
        about = f"{HEADLINE} of both, against the other references"
        yield Tile("relative to a reference caption", f"{100 * model / reference:.0f} %", "", about)


def _validation(files: RunFiles) -> Iterator[Tile]:
    for key in _LOGGED:
        steps, values = series(files.metrics, key)
        finite = [value for value in values if numbers.is_number(value)]
        if finite:
            is_loss = key.endswith("loss")
            text, best = (numbers.number_text, min) if is_loss else (numbers.score_text, max)
            about = f"last, at step {steps[-1]:,}; best {text(best(finite))}"
            yield Tile(key, text(values[-1]), "", about)


def _cost(result: Mapping[str, Any]) -> Iterator[Tile]:
    cost = mapping(result, "cost")
    if numbers.is_number(cost.get("wall_seconds")):
        parameters = cost.get("total_parameters")
        about = f"{numbers.amount_text(parameters)} parameters" if parameters else ""
        yield Tile("wall time", numbers.duration_text(cost["wall_seconds"]), "", about)
