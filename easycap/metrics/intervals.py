"""Bootstrap intervals of corpus scores over images: the same resampled weights for all metrics and systems.

Document frequencies stay fixed while images are resampled: they belong to the metric, not to the sample.

A resample has images twice, which raises scores that are not means: a tag's average precision where its few images
come twice, and the mean over tags where those without a drawn image drop out. An interval is therefore that of the
resamples less their bias, the mean of their values less the value itself (Efron and Tibshirani, An Introduction to
the Bootstrap, 1993, chapter 10).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from easycap.types import Score

RESAMPLES = 1000
# Weights are made this many at a time (64 MiB), whatever the number of images.
_BLOCK = 8_000_000


@dataclass(frozen=True, eq=False)
class FromStatistics:
    """The `resample` of a score that a formula makes from summed per-image statistics (N, k), such as BLEU."""

    statistics: np.ndarray
    formula: Callable[[np.ndarray], np.ndarray]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Turn weights (R, N) into corpus values (R,)."""
        return self.formula(weights @ self.statistics)


def weight_blocks(num_images: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield blocks (r, N), `resamples` rows in all, of how often each of N images is drawn."""
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // num_images)
    for start in range(0, resamples, rows):
        block = np.empty((min(rows, resamples - start), num_images))
        for row in block:
            row[:] = np.bincount(generator.integers(0, num_images, num_images), minlength=num_images)
        yield block


def resampled(
    scores: Mapping[str, Score], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return each score's corpus value under every resample (R,); weights follow the sorted image ids.

    Scores of the same images share their weights, so that differences of two systems are paired.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, score in scores.items():
        groups.setdefault(tuple(sorted(score.per_image)), []).append(name)
    values: dict[str, np.ndarray] = {}
    for ids, names in groups.items():
        blocks: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for weights in weight_blocks(len(ids), resamples=resamples, seed=seed):
            for name in names:
                blocks[name].append(_values(scores[name], ids, weights))
        values |= {name: np.concatenate(parts) for name, parts in blocks.items()}
    return values


def _values(score: Score, ids: tuple[str, ...], weights: np.ndarray) -> np.ndarray:
    if score.resample is None:
        return weights @ np.array([score.per_image[i] for i in ids]) / len(ids)
    if tuple(score.per_image) != ids:
        place = {image_id: column for column, image_id in enumerate(ids)}
        weights = weights[:, [place[i] for i in score.per_image]]
    return score.resample(weights)


def interval(values: np.ndarray, value: float, *, is_mean: bool) -> tuple[float, float]:
    """Return the 95 % percentile interval of resampled values (R,) of a score, corrected for bias unless it `is_mean`.

    A mean has no bootstrap bias; what the resamples show is noise. The interval stays within 0..1 if all values do.
    """
    low, high = np.percentile(values, [2.5, 97.5])
    if is_mean:
        return float(low), float(high)
    bias = values.mean() - value
    least = 0.0 if values.min() >= 0 else -np.inf
    most = 1.0 if values.max() <= 1 else np.inf
    return float(max(low - bias, least)), float(min(high - bias, most))


def with_intervals(
    scores: Mapping[str, Score], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Score]:
    """Return the scores with their 95 % `interval` as low and high; a single image has none."""
    able = {name: score for name, score in scores.items() if len(score.per_image) > 1}
    found = dict(scores)
    for name, values in resampled(able, resamples=resamples, seed=seed).items():
        score = scores[name]
        low, high = interval(values, score.value, is_mean=score.resample is None)
        found[name] = replace(score, low=low, high=high)
    return found
