"""Comparing two systems on the same images: paired difference, interval, p value, and where they differ most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from easycap.errors import UserError
from easycap.metrics.intervals import RESAMPLES, FromStatistics, interval, resampled
from easycap.types import Score

TRIALS = 2000


@dataclass(frozen=True)
class Comparison:
    """One metric of systems a and b: values, difference a - b with its 95 % interval, and a two-sided p value.

    `method` names the test; `comparable` is False if the `signatures` of a and b differ, which `mismatch` then
    lists; `images` holds (id, a, b) of the images with the largest difference, largest first.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    method: str
    signatures: tuple[str, str]
    comparable: bool
    mismatch: tuple[str, ...]
    images: tuple[tuple[str, float, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain numbers, strings and lists."""
        return asdict(self)


def compare(
    a: Mapping[str, Score],
    b: Mapping[str, Score],
    *,
    resamples: int = RESAMPLES,
    trials: int = TRIALS,
    show: int = 10,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Compare the metrics that both systems have, image by image.

    Means are tested by flipping signs, BLEU and other scores of summed counts by approximate randomisation (Noreen,
    1989); the interval is a paired bootstrap. Raises `UserError` if the systems were scored on different images.
    """
    shared = [name for name in a if name in b]
    for name in shared:
        _check_images(a[name], b[name], name)
    left = resampled({name: a[name] for name in shared}, resamples=resamples, seed=seed)
    right = resampled({name: b[name] for name in shared}, resamples=resamples, seed=seed)
    found = {}
    for name in shared:
        difference = a[name].value - b[name].value
        low, high = interval(left[name] - right[name], difference, is_mean=a[name].resample is None)
        p_value, method = _p_value(a[name], b[name], trials, seed)
        mismatch = signature_mismatch(a[name].signature, b[name].signature)
        found[name] = Comparison(
            a=a[name].value,
            b=b[name].value,
            difference=difference,
            low=low,
            high=high,
            p_value=p_value,
            method=method,
            signatures=(a[name].signature, b[name].signature),
            comparable=not mismatch,
            mismatch=mismatch,
            images=_furthest(a[name], b[name], show),
        )
    return found


def signature_mismatch(a: str, b: str) -> tuple[str, ...]:
    """Return the parts in which two signatures differ, e.g. ("df: refs,N=500 / refs,N=1000",)."""
    parts = [dict(part.partition(":")[::2] for part in text.split("|")) for text in (a, b)]
    keys = [*parts[0], *(key for key in parts[1] if key not in parts[0])]
    both = [(key, parts[0].get(key, "-"), parts[1].get(key, "-")) for key in keys]
    return tuple(f"{key}: {x} / {y}" for key, x, y in both if x != y)


def _check_images(a: Score, b: Score, name: str) -> None:
    if a.per_image.keys() != b.per_image.keys():
        odd = sorted(a.per_image.keys() ^ b.per_image.keys())
        raise UserError(
            f"{name} was computed on different images ({len(odd)} are in one system only, e.g. {odd[0]!r}); "
            "score both systems on the same images"
        )


def _p_value(a: Score, b: Score, trials: int, seed: int) -> tuple[float, str]:
    ids = sorted(a.per_image)
    observed = abs(a.value - b.value)
    extreme = 0
    for flips in _flips(len(ids), trials, seed):
        extreme += int((np.abs(_under(a, b, ids, flips)) >= observed - 1e-12).sum())
    method = "approximate randomisation" if a.resample else "sign flip"
    return (extreme + 1) / (trials + 1), method


def _under(a: Score, b: Score, ids: list[str], flips: np.ndarray) -> np.ndarray:
    """Differences (r,) if the systems change places on the images where flips (r, N) is 1."""
    if a.resample is None:
        gaps = np.array([a.per_image[i] - b.per_image[i] for i in ids])
        return (1 - 2 * flips) @ gaps / len(ids)
    assert isinstance(a.resample, FromStatistics)
    assert isinstance(b.resample, FromStatistics)
    first, second = _in_order(a, ids), _in_order(b, ids)
    moved = flips @ (second - first)
    return a.resample.formula(first.sum(axis=0) + moved) - a.resample.formula(second.sum(axis=0) - moved)


def _in_order(score: Score, ids: list[str]) -> np.ndarray:
    place = {image_id: row for row, image_id in enumerate(score.per_image)}
    assert isinstance(score.resample, FromStatistics)
    return score.resample.statistics[[place[i] for i in ids]]


def _flips(num_images: int, trials: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    rows = max(1, 8_000_000 // num_images)
    for start in range(0, trials, rows):
        yield generator.integers(0, 2, (min(rows, trials - start), num_images), dtype=np.int8).astype(float)


def _furthest(a: Score, b: Score, show: int) -> tuple[tuple[str, float, float], ...]:
    rows = [(image_id, value, b.per_image[image_id]) for image_id, value in a.per_image.items()]
    rows.sort(key=lambda row: (-abs(row[1] - row[2]), row[0]))
    return tuple(rows[:show])
