"""What the compared settings bring: the front of quality against cost, and main effects with intervals.

A main effect is read where everything else is equal: runs that differ in one setting alone, averaged over the
combinations of the others (a context) in which all its values were run. No model of the scores is fitted.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from easycap.metrics.intervals import weight_blocks
from easycap.report.comparison.read_runs import Comparison
from easycap.report.comparison.settings import follows, group_of, sort_key

MAX_PANELS = 3  # sets of values shown of one setting
# Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom (Fisher and Yates, Statistical Tables).
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One run's score for the effects: its settings, seed, value, and per-image values (N,) where their mean is
    the score; all points have the same images in the same order.
    """

    settings: Mapping[str, str]
    seed: str
    value: float
    images: np.ndarray | None = None


@dataclass(frozen=True)
class Level:
    """One value of a setting: its mean score, and how far that is from the mean of all values, with interval."""

    value: str
    mean: float
    effect: float
    low: float | None
    high: float | None
    num_runs: int


@dataclass(frozen=True)
class Effect:
    """The levels of one setting over `num_contexts` combinations of the others; `also` are settings that changed
    together with it; `interval` says in words what the intervals are.
    """

    key: str
    also: tuple[str, ...]
    levels: tuple[Level, ...]
    num_contexts: int
    interval: str


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the (cost, quality) that no other beats in one and equals in the other, cheapest first."""
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1]))
    front: list[int] = []
    for index in order:
        if not front or points[index][1] > points[front[-1]][1] or points[index] == points[front[-1]]:
            front.append(index)
    return front


def front_of(comparison: Comparison, metric: str, cost: str) -> list[int]:
    """Return the numbers of the runs on the front of `metric` against `cost`, cheapest first."""
    found = [
        (run.number, (price, score["value"]))
        for run in comparison.comparable(metric)
        if (price := run.cost(cost)) is not None and (score := comparison.score(run, metric))
    ]
    return [found[index][0] for index in pareto([point for _, point in found])]


def main_effects(points: Sequence[Point], keys: Sequence[str]) -> list[Effect]:
    """Return the effects of each of `keys`, at most MAX_PANELS each; of a key that was never varied alone, none.

    Keys of one config group that change together everywhere are one setting. Intervals are over seeds where a
    combination was run with two or more, else over images.
    """
    effects = []
    for group in _together(points, keys):
        if len({group_of(key) for key in group}) == 1:
            effects += _effects_of(points, group, [other for other in keys if other not in group])
    return effects


def _together(points: Sequence[Point], keys: Sequence[str]) -> list[tuple[str, ...]]:
    groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for key in keys:
        values = [point.settings.get(key) for point in points]
        if len(set(values)) > 1:
            groups[tuple(values.index(value) for value in values)].append(key)
    return [tuple(group) for group in groups.values()]


def _effects_of(points: Sequence[Point], group: tuple[str, ...], others: Sequence[str]) -> list[Effect]:
    key = group[0]
    dependent = [
        other for other in others if group_of(other) == group_of(key) and _depends(points, other, key)
    ]
    group, others = (*group, *dependent), [other for other in others if other not in dependent]
    contexts: dict[tuple, dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        if key in point.settings:
            contexts[tuple(map(point.settings.get, others))][point.settings[key]].append(point)
    covered = {frozenset(cells) for cells in contexts.values() if len(cells) > 1}
    panels = [(values, [c for c in contexts.values() if values <= c.keys()]) for values in covered]
    panels.sort(key=lambda panel: (-len(panel[0]) * len(panel[1]), sorted(panel[0])))
    return [_effect(group, values, cells) for values, cells in panels[:MAX_PANELS]]


def _depends(points: Sequence[Point], other: str, key: str) -> bool:
    """Whether `other` follows from `key`, or has no meaning for one of its values (a choice's own setting)."""
    settings = [point.settings for point in points]
    known = {of[key] for of in settings if key in of and other in of}
    return follows(settings, other, key) or any(of[key] not in known for of in settings if key in of)


def _effect(
    group: tuple[str, ...], values: frozenset[str], contexts: Sequence[Mapping[str, list[Point]]]
) -> Effect:
    ordered = sorted(values, key=sort_key)
    cells = [[context[value] for context in contexts] for value in ordered]
    means = np.array([np.mean([np.mean([p.value for p in cell]) for cell in row]) for row in cells])
    half, interval = _over_seeds(cells)
    effects = means - means.mean()
    lows, highs = effects - half, effects + half
    if np.isnan(half).any():
        lows, highs, interval = _over_images(cells, len(ordered))
    levels = tuple(
        Level(value, float(mean), float(effect), _finite(low), _finite(high), sum(map(len, row)))
        for value, mean, effect, low, high, row in zip(
            ordered, means, effects, lows, highs, cells, strict=True
        )
    )
    return Effect(group[0], group[1:], levels, len(contexts), interval)


def _over_seeds(cells: Sequence[Sequence[Sequence[Point]]]) -> tuple[np.ndarray, str]:
    """Half widths (V,) of the effects' intervals: the variance between seeds is pooled over all cells."""
    groups = [[_values_by_seed(cell) for cell in row] for row in cells]
    freedom = sum(len(group) - 1 for row in groups for group in row)
    if not freedom:
        return np.full(len(cells), math.nan), ""
    pooled = sum(((group - group.mean()) ** 2).sum() for row in groups for group in row) / freedom
    # The mean of a row of C cells has variance pooled / C^2 * sum(1 / n), an effect that of its difference.
    rows = np.array([pooled * sum(1 / len(group) for group in row) / len(row) ** 2 for row in groups])
    count = len(rows)
    variances = rows * (1 - 2 / count) + rows.sum() / count**2
    words = f"95 % interval over seeds ({freedom} degrees of freedom)"
    return student_t(freedom) * np.sqrt(variances), words


def _values_by_seed(cell: Sequence[Point]) -> np.ndarray:
    """One value per seed: a run made twice with one seed says nothing about chance."""
    seeds = dict.fromkeys(point.seed for point in cell)
    return np.array([np.mean([point.value for point in cell if point.seed == seed]) for seed in seeds])


def _over_images(
    cells: Sequence[Sequence[Sequence[Point]]], count: int
) -> tuple[np.ndarray, np.ndarray, str]:
    nothing = np.full(count, math.nan)
    if any(point.images is None for row in cells for cell in row for point in cell):
        return nothing, nothing, "one seed, and no values per image that make this score: no interval"

    def mean_of(cell: Sequence[Point]) -> np.ndarray:
        return np.mean([point.images for point in cell if point.images is not None], axis=0)

    rows = np.array([np.mean([mean_of(cell) for cell in row], axis=0) for row in cells])
    gaps = rows - rows.mean(axis=0)
    num_images = rows.shape[1]
    drawn = np.concatenate([weights @ gaps.T / num_images for weights in weight_blocks(num_images)])
    lows, highs = np.percentile(drawn, [2.5, 97.5], axis=0)
    return lows, highs, "one seed: 95 % interval over test images, which says nothing about other seeds"


def student_t(freedom: int) -> float:
    """Return the two-sided 95 % quantile of Student's t."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = 1.959964
    # Cornish and Fisher's expansion: exact to 0.001 from here on.
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
