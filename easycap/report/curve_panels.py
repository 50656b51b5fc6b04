"""Which logged quantities share a chart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from easycap.report.charts import Chart, Level, Series, line_chart
from easycap.report.scores import BASELINES, HEADLINE, TAG_HEADLINE, mapping
from easycap.runs.reading import series
from easycap.utils.text import is_count, is_number, number_text

_NOT_CURVES = ("step", "epoch", "seconds")


@dataclass(frozen=True)
class _Panel:
    """A chart of every logged key that matches; shares and scores are drawn ×100."""

    title: str
    pattern: str
    hundredfold: bool = False
    may_be_log: bool = False
    aside: bool = False  # shown among what nobody reads first


_PANELS = (
    _Panel("Loss", r"(train|val)/(\w+_)?loss(_\w+)?(/.*)?", may_be_log=True),
    _Panel(f"{HEADLINE} on validation images", rf"val/{HEADLINE}", True),
    _Panel(f"{TAG_HEADLINE} on validation images", rf"val/{TAG_HEADLINE}", True),
    _Panel(
        "Other scores on validation images",
        r"val/(BLEU-4|ROUGE.*|METEOR|SPICE|truth|claims|recall|(precision|recall|F1)@3)",
        True,
    ),
    _Panel(
        "Signs of collapse in validation captions, %",
        r"val/(.*(distinct|novel|most_frequent|repeat|ending|unknown|empty).*)",
        True,
    ),
    _Panel("Learning rate", r"train/(lr|learning_rate).*"),
    _Panel("Gradient norm", r"train/grad_norm.*", may_be_log=True),
    _Panel("Images per second", r"(train|val)/images_per_second"),
    _Panel("BLEU of shorter n-grams on validation images", r"val/BLEU-[123]", True, aside=True),
)


def curves(
    metrics: Sequence[Mapping[str, Any]], result: Mapping[str, Any] | None
) -> tuple[list[Chart], list[Chart]]:
    """Return the charts everybody reads, and one chart for each other quantity that was logged."""
    lines = {key: points for key in _logged(metrics) if (points := series(metrics, key))[0]}
    x_range = _x_range([steps for steps, _ in lines.values()])
    charts: list[Chart] = []
    others: list[Chart] = []
    for panel in _PANELS:
        keys = [key for key in lines if re.fullmatch(panel.pattern, key)]
        keys = [key for key in keys if not (panel.hundredfold and is_count(key))]
        keys.sort(key=lambda key: key.startswith("val/"))  # training takes the first colour
        if keys:
            levels = _levels(result) if keys == [f"val/{HEADLINE}"] else ()
            chart = _chart({key: lines.pop(key) for key in keys}, panel, x_range, levels)
            (others if panel.aside else charts).append(chart)
    return charts, others + [_chart({key: points}, _Panel(key, ""), x_range) for key, points in lines.items()]


def _logged(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for line in metrics for key in line if key not in _NOT_CURVES))


def _x_range(steps: Sequence[Sequence[int]]) -> tuple[float, float] | None:
    """One range for all charts, so that they can be read down a column; from zero unless far from it."""
    if not steps:
        return None
    low, high = min(one[0] for one in steps), max(one[-1] for one in steps)
    return (0 if 0 <= low < high / 2 else low, high)


def _chart(
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    panel: _Panel,
    x_range: tuple[float, float] | None,
    levels: Sequence[Level] = (),
) -> Chart:
    names, scale = _short_names(list(points)), 100.0 if panel.hundredfold else 1.0
    lines = []
    for tone, (key, (steps, values)) in enumerate(points.items()):
        if len(points) == 1 and key.startswith("val/"):
            tone = 1  # the tone it has where training has a line too
        lines.append(Series(names[key], steps, [scale * value for value in values], tone))
    text = "{:.1f}".format if panel.hundredfold else number_text
    return line_chart(
        lines, title=panel.title, levels=levels, x_range=x_range, may_be_log=panel.may_be_log, text=text
    )


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """Drop the prefix that all keys share: the title says it."""
    if len(keys) == 1:
        return {keys[0]: keys[0].split("/", 1)[-1].replace("_", " ")}
    prefixes = {key.split("/")[0] for key in keys}
    cut = 1 if len(prefixes) == 1 else 0
    names = {key: "/".join(key.split("/")[cut:]) for key in keys}
    if all(name.startswith("grad_norm") for name in names.values()):
        names = {key: name.removeprefix("grad_norm").strip("/") or "all" for key, name in names.items()}
    if all(name.endswith("/loss") for name in names.values()):
        names = {key: name.removesuffix("/loss") for key, name in names.items()}
    return {key: name.replace("_", " ") for key, name in names.items()}


def _levels(result: Mapping[str, Any] | None) -> tuple[Level, ...]:
    """The baselines of the validation split, once it is evaluated (`easycap evaluate RUN --split val`).

    They do not follow the curve's protocol: the curve may use fewer images, and a reference caption is not among its
    own references.
    """
    baselines = mapping(result, "baselines", "val")
    found = []
    for key, label in BASELINES.items():
        value: Any = mapping(baselines, key, HEADLINE).get("value")
        if key != "model_same_references" and is_number(value):
            found.append(Level(f"{label} on val", 100 * value))
    return tuple(found)
