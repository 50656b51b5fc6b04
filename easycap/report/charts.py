"""Line charts as inline SVG, drawn here so that a page needs no script library and no network.

Colours are classes (tone-0 .. tone-7) that the page's style sheet defines for light and dark. Pixels are
those of the view box; the page scales the picture to its column.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup, escape

from easycap.utils.text import number_text

WIDTH, HEIGHT = 400, 210
LEFT, RIGHT, TOP, BOTTOM = 42, 10, 10, 28
NUM_TONES = 8
MAX_POINTS = 240  # about one per two pixels: more cannot be seen
_MAX_DOTS = 40
_LOG_RATIO = 50.0
SMALL_RANGE = 0.2  # of the largest value: positive values that differ by less get an axis from zero


@dataclass(frozen=True)
class Series:
    """A line: x ascending (steps) and y of equal length; y that is not finite leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    tone: int = 0


@dataclass(frozen=True)
class Level:
    """A horizontal dashed line to compare with."""

    name: str
    value: float


@dataclass(frozen=True)
class Legend:
    """What a chart says of one line in words; `tone` None for a level."""

    name: str
    tone: int | None
    text: str
    warning: str = ""


@dataclass(frozen=True)
class Chart:
    """A drawn chart: the SVG, what the hover script needs (JSON), and the legend."""

    title: str
    svg: Markup
    data: str
    legend: tuple[Legend, ...]
    log: bool


@dataclass(frozen=True)
class _Line:
    """A thinned series: mean of each bin, and the bin's extremes where there was more than one point."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


@dataclass(frozen=True)
class Scale:
    """Maps data to pixels along one axis, linearly or by logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    ticks: tuple[float, ...] = field(default=())

    def __call__(self, values: float | np.ndarray) -> np.ndarray:
        """Return the places, in pixels, of values on the axis."""
        low, high, numbers = self.low, self.high, np.asarray(values, dtype=float)
        if self.log:
            low, high, numbers = math.log10(low), math.log10(high), np.log10(np.maximum(numbers, self.low))
        return np.asarray(self.start + (numbers - low) / (high - low) * (self.end - self.start))


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    levels: Sequence[Level] = (),
    x_range: tuple[float, float] | None = None,
    may_be_log: bool = False,
    text: Callable[[float], str] = number_text,
) -> Chart:
    """Return the chart of `series`, of at most MAX_POINTS points each, values written by `text`; `may_be_log`
    lets positive values over a wide range of sizes have a logarithmic axis.
    """
    lines = [_thin(one) for one in series]
    x_axis, y_axis = _x_scale(lines, x_range), _y_scale(lines, [level.value for level in levels], may_be_log)
    parts = [_axes(x_axis, y_axis)]
    parts += [_draw_level(level, y_axis) for level in levels]
    parts += [_draw_band(line, one.tone, x_axis, y_axis) for one, line in zip(series, lines, strict=True)]
    parts += [_draw_line(line, one.tone, x_axis, y_axis) for one, line in zip(series, lines, strict=True)]
    legend = _legend(series, levels, text)
    summary = escape("; ".join(f"{entry.name}: {entry.text}" for entry in legend))
    svg = Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}. {summary}">'
        f'{"".join(parts)}<g class="cursor" visibility="hidden"></g></svg>'
    )
    return Chart(title, svg, _hover_data(series, lines, x_axis, y_axis, text), legend, y_axis.log)


def nice_ticks(low: float, high: float, *, count: int = 4) -> tuple[float, ...]:
    """Return about `count` round numbers that lie in low..high."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda step: abs(step - rough))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(i * step, 12) for i in range(first, last + 1))


def _thin(series: Series) -> _Line:
    x, y = np.asarray(series.x, dtype=float), np.asarray(series.y, dtype=float)
    y = np.where(np.isfinite(y), y, np.nan)
    if len(x) <= MAX_POINTS:
        return _Line(x, y)
    # Bins hold equally many points, not equally many steps: a densely logged stretch keeps its detail.
    bins = np.array_split(np.arange(len(x)), MAX_POINTS)
    lows, means, highs = zip(*(_summary(y[rows]) for rows in bins), strict=True)
    centres = np.array([x[rows].mean() for rows in bins])
    centres[0], centres[-1] = x[0], x[-1]
    return _Line(centres, np.array(means), np.array(lows), np.array(highs))


def _summary(values: np.ndarray) -> tuple[float, float, float]:
    values = values[np.isfinite(values)]
    return (values.min(), values.mean(), values.max()) if len(values) else (math.nan,) * 3


def _x_scale(lines: Sequence[_Line], x_range: tuple[float, float] | None) -> Scale:
    xs = np.concatenate([line.x for line in lines]) if lines else np.array([])
    low, high = x_range or ((float(xs.min()), float(xs.max())) if len(xs) else (0.0, 1.0))
    high = high if high > low else low + 1
    return Scale(low, high, LEFT, WIDTH - RIGHT, ticks=nice_ticks(low, high, count=5))


def _y_scale(lines: Sequence[_Line], levels: Sequence[float], may_be_log: bool) -> Scale:
    arrays = [part for line in lines for part in (line.y, line.low, line.high) if part is not None]
    values = np.concatenate([*arrays, np.asarray(levels, dtype=float)]) if arrays else np.array([])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if may_be_log and low > 0 and high / low > _LOG_RATIO:
        return _log_scale(low, high)
    if low > 0 and high - low < SMALL_RANGE * high:
        low = 0.0
    elif high - low < 1e-9 * max(abs(high), 1e-30):
        low, high = (low - 0.5 * abs(low), high + 0.5 * abs(high)) if high else (0.0, 1.0)
    margin = 0.06 * (high - low)
    low = 0.0 if 0 <= low < 0.25 * high else low - margin
    high += margin if not len(levels) else 2.5 * margin  # room for a level's name
    return Scale(low, high, HEIGHT - BOTTOM, TOP, ticks=nice_ticks(low, high))


def _log_scale(low: float, high: float) -> Scale:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(decades) <= 3 else (1,)
    every = max(1, len(decades) // 6)
    low, high = low / 1.2, high * 1.2
    ticks = [factor * 10.0**decade for decade in decades[::every] for factor in factors]
    return Scale(low, high, HEIGHT - BOTTOM, TOP, True, tuple(tick for tick in ticks if low <= tick <= high))


def _axes(x_axis: Scale, y_axis: Scale) -> str:
    parts = []
    for value in y_axis.ticks:
        y = _pixel(y_axis(value))
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y}" dy=".35em" class="y">{_tick_text(value)}</text>')
    for value in x_axis.ticks:
        parts.append(
            f'<text x="{_pixel(x_axis(value))}" y="{HEIGHT - 8}" class="x">{_tick_text(value)}</text>'
        )
    parts.append(f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    return "".join(parts)


def _draw_level(level: Level, y_axis: Scale) -> str:
    y = _pixel(y_axis(level.value))
    # Learning curves rise from the lower left: high names go left, low ones right, to stay clear of them.
    x, anchor = (LEFT + 4, "start") if float(y) < HEIGHT / 2 else (WIDTH - RIGHT, "end")
    name = f'<text x="{x}" y="{y}" dy="-4" text-anchor="{anchor}">{escape(level.name)}</text>'
    return f'<path class="level" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>{name}'


def _draw_line(line: _Line, tone: int, x_axis: Scale, y_axis: Scale) -> str:
    colour = f"tone-{tone % NUM_TONES}{' dashed' if tone >= NUM_TONES else ''}"
    drawn = f'<path class="line {colour}" d="{_path(line.x, line.y, x_axis, y_axis)}"/>'
    if len(line.x) > _MAX_DOTS:
        return drawn
    finite = np.isfinite(line.y)
    xs, ys = x_axis(line.x[finite]), y_axis(line.y[finite])
    dots = (f'<circle cx="{_pixel(x)}" cy="{_pixel(y)}" r="2.6"/>' for x, y in zip(xs, ys, strict=True))
    return f'{drawn}<g class="dot {colour}">{"".join(dots)}</g>'


def _draw_band(line: _Line, tone: int, x_axis: Scale, y_axis: Scale) -> str:
    if line.low is None or line.high is None:
        return ""
    inside = np.isfinite(line.low)
    there = _path(line.x[inside], line.high[inside], x_axis, y_axis)
    back = _path(line.x[inside][::-1], line.low[inside][::-1], x_axis, y_axis).replace("M", "L")
    return f'<path class="band tone-{tone % NUM_TONES}" d="{there}{back}Z"/>' if there else ""


def _path(x: np.ndarray, y: np.ndarray, x_axis: Scale, y_axis: Scale) -> str:
    commands, pen = [], "M"
    for across, down in zip(x_axis(x), y_axis(y), strict=True):
        if not math.isfinite(down):
            pen = "M"
            continue
        commands.append(f"{pen}{_pixel(across)} {_pixel(down)}")
        pen = "L"
    return "".join(commands)


def _legend(
    series: Sequence[Series], levels: Sequence[Level], text: Callable[[float], str]
) -> tuple[Legend, ...]:
    entries = [Legend(one.name, one.tone, *_last_value(one, text)) for one in series]
    return (*entries, *(Legend(level.name, None, text(level.value)) for level in levels))


def _last_value(series: Series, text: Callable[[float], str]) -> tuple[str, str]:
    y = np.asarray(series.y, dtype=float)
    finite = y[np.isfinite(y)]
    last = text(float(finite[-1])) if len(finite) else "no value"
    broken = np.flatnonzero(~np.isfinite(y))
    return last, f"not finite at step {number_text(series.x[broken[0]])}" if len(broken) else ""


def _hover_data(
    series: Sequence[Series],
    lines: Sequence[_Line],
    x_axis: Scale,
    y_axis: Scale,
    text: Callable[[float], str],
) -> str:
    """Points in pixels with the numbers to show, so that the script needs to know nothing about scales."""
    rows = []
    for one, line in zip(series, lines, strict=True):
        seen = np.isfinite(line.y)
        x, y = line.x[seen], line.y[seen]
        rows.append(
            {
                "name": one.name,
                "tone": one.tone % NUM_TONES,
                "step": [round(float(value)) for value in x],
                "text": [text(float(value)) for value in y],
                "px": [float(_pixel(value)) for value in x_axis(x)],
                "py": [float(_pixel(value)) for value in y_axis(y)],
            }
        )
    return json.dumps(rows, separators=(",", ":"))


def _tick_text(value: float) -> str:
    if abs(value) >= 10_000 and value % 100 == 0:
        return f"{value / 1000:g}k" if abs(value) < 1e6 else f"{value / 1e6:g}M"
    return f"{value:.6g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.0e}".replace("e-0", "e-")


def _pixel(value: float | np.ndarray) -> str:
    return f"{float(value):.1f}".removesuffix(".0")
