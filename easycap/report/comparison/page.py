"""The page that compares runs: one file that needs no network; its rows link to the reports of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from easycap.errors import UserError
from easycap.report.comparison.columns import Column, columns
from easycap.report.comparison.curves import overlaid_curves
from easycap.report.comparison.effects import Effect, Point, front_of, main_effects
from easycap.report.comparison.hints import hints
from easycap.report.comparison.per_image import PerImage, chosen_images, per_image
from easycap.report.comparison.read_runs import Comparison
from easycap.report.comparison.run_names import report_address, short_names
from easycap.report.comparison.set_scores import SetTable, set_tables
from easycap.report.comparison.settings import SEED, most_balanced, sort_key
from easycap.report.run_page import environment
from easycap.report.thumbnails import Pictures, Thumbnails
from easycap.report.thumbnails import write_page as write_with_pictures
from easycap.utils import text as numbers
from easycap.utils.text import signed_text

_LABELLED = range(2, 13)  # as many runs a caption names in words, more by number

_NOT_SPENT = ("images_per_second",)  # more of it is better: no axis to look for less on


def write_page(comparison: Comparison, path: Path, *, title: str, command: str) -> None:
    """Write the page to `path`, whole or not at all; raises `UserError` if it cannot be written there."""

    def made(pictures: Pictures) -> str:
        return render(comparison, pictures, title=title, command=command, folder=path.resolve().parent)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_with_pictures(path, made)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): choose another by --html OUT"
        ) from None


def render(comparison: Comparison, pictures: Pictures, *, title: str, command: str, folder: Path) -> str:
    """Return the comparison as HTML to lie in `folder`, its images where `pictures` puts them."""
    values = per_image(comparison)
    images = chosen_images(comparison, values.get(comparison.metrics[0]))
    table = columns(comparison)
    context = {
        "title": title,
        "pictures": pictures,
        "comparison": comparison,
        "command": command,
        "columns": _read_first(table),
        "data": _data(comparison, table),
        "effects": {
            metric: _effects(comparison, metric, values.get(metric)) for metric in comparison.metrics
        },
        "effect_box": effect_box,
        "images": images,
        "labelled": len(comparison.runs) in _LABELLED,
        "thumbnails": Thumbnails((image.sample.image for image in images), pictures),
        "names": short_names([run.name for run in comparison.runs]),
        "reports": [report_address(run.folder, folder) for run in comparison.runs],
        "made": datetime.now().astimezone().isoformat(),
        "sets": _by_title(set_tables(comparison)),
        "hints": hints(comparison),
        "problems": [run for run in comparison.runs if run.problem],
    }
    templates = environment()
    templates.filters |= {"signed": signed_text, "breakable": _breakable}
    return templates.get_template("compare.html.j2").render(context)


def _by_title(tables: Sequence[SetTable]) -> dict[str, list[SetTable]]:
    found: dict[str, list[SetTable]] = {}
    for table in tables:
        found.setdefault(table.title, []).append(table)
    return found


def effect_box(effects: Sequence[Effect]) -> tuple[float, float]:
    """Return the (low, high) that all effects and intervals of one metric fit in, zero among them."""
    ends = [
        end
        for effect in effects
        for level in effect.levels
        for end in (level.effect, level.low, level.high)
        if end is not None
    ]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    return (low, high) if high > low else (low - 1, high + 1)


def _read_first(table: Sequence[Column]) -> list[Column]:
    """The first score in front, where a narrow window shows it, and what became of a run behind the scores."""
    scores = [column for column in table if column.kind == "score"]
    groups = [
        [column for column in table if column.kind == kind]
        for kind in ("setting", "run", "cost", "following")
    ]
    return [*scores[:1], *groups[0], *scores[1:], *groups[1], *groups[2], *groups[3]]


def _breakable(key: str) -> Markup:
    """A dotted key that a narrow column may break after its dots and underlines."""
    return Markup(str(escape(key)).replace(".", ".<wbr>").replace("_", "_<wbr>"))


def _effects(comparison: Comparison, metric: str, values: PerImage | None) -> list[Effect]:
    points = [
        Point(
            run.settings,
            run.settings.get(SEED, ""),
            score["value"],
            values.values.get(run.number) if values else None,
        )
        for run in comparison.comparable(metric)
        if (score := comparison.score(run, metric))
    ]
    return main_effects(points, comparison.settings + comparison.following)


def _data(comparison: Comparison, table: Sequence[Column]) -> dict[str, Any]:
    """What the script draws and filters by, as plain numbers and texts."""
    costs: list[dict[str, Any]] = [
        {"key": column.key, "title": column.title, "text": [cell.text for cell in column.cells]}
        for column in table
        if column.kind == "cost" and column.key not in _NOT_SPENT and not column.is_constant
    ]
    metrics = [
        {"key": metric, "factor": 1 if numbers.is_count(metric) else 100} for metric in comparison.metrics
    ]
    keys = comparison.keys + comparison.following
    runs: list[dict[str, Any]] = [
        {
            "number": run.number,
            "label": comparison.label(run),
            "settings": [run.settings.get(key, numbers.NOTHING) for key in keys],
            "scores": {m: _plain_score(comparison, run, m) for m in comparison.metrics},
            "cost": {cost["key"]: run.cost(cost["key"]) for cost in costs},
        }
        for run in comparison.runs
    ]
    fronts = {m: {c["key"]: front_of(comparison, m, c["key"]) for c in costs} for m in comparison.metrics}
    levels = [sorted({run["settings"][index] for run in runs}, key=sort_key) for index in range(len(keys))]
    return {
        "runs": runs,
        "keys": keys,
        "levels": levels,
        "colour": most_balanced([run["settings"][: len(comparison.settings)] for run in runs]),
        "metrics": metrics,
        "costs": costs,
        "fronts": fronts,
        "curves": overlaid_curves(comparison),
    }


def _plain_score(comparison: Comparison, run: Any, metric: str) -> list[Any] | None:
    score = comparison.score(run, metric)
    if score is None:
        return None
    ends = [score[end] if numbers.is_number(score.get(end)) else None for end in ("low", "high")]
    return [score["value"], *ends, run.number not in comparison.protocols[metric].reasons]
