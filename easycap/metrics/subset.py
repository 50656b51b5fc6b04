"""Scores of a subset of the scored images, without scoring them again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np

from easycap.metrics.intervals import FromStatistics, with_intervals
from easycap.metrics.scoring import Scores
from easycap.types import Score

# Weights are widened this many numbers at a time (64 MiB).
_BLOCK = 8_000_000


def subset_scores(scores: Scores, ids: Collection[str], *, split: str) -> Scores:
    """Return the scores of the images `ids`, of those that have `scores`, with their own intervals and `split`.

    A mean over images is taken over these; BLEU, METEOR and other scores of a whole corpus are made from the statistics
    of these. Both equal the scores of the images alone, except that document frequencies (CIDEr-D, self-CIDEr) stay
    those of all images.
    """
    chosen = frozenset(ids)
    found = {name: _of_images(score, chosen, split) for name, score in scores.items()}
    return Scores(with_intervals(found), scores.absent, {"images": len(chosen)})


def _of_images(score: Score, chosen: frozenset[str], split: str) -> Score:
    columns = np.array([i for i, image_id in enumerate(score.per_image) if image_id in chosen], np.int64)
    per_image = {image_id: value for image_id, value in score.per_image.items() if image_id in chosen}
    text = _signature(score.signature, per_image, len(score.per_image), split)
    if score.resample is None:
        value = sum(per_image.values()) / len(per_image)
        return Score(value, per_image, text)
    resample: Callable[[np.ndarray], np.ndarray] = _OfColumns(score.resample, columns, len(score.per_image))
    if isinstance(score.resample, FromStatistics):
        resample = replace(score.resample, statistics=score.resample.statistics[columns])
    return Score(float(resample(np.ones((1, len(columns))))[0]), per_image, text, resample=resample)


def _signature(whole: str, ids: Collection[str], num_images: int, split: str) -> str:
    """The signature of the whole with images:<number>/<number of the whole>,<digest of the ids>, and the split."""
    digest = hashlib.blake2b("\0".join(sorted(ids)).encode("utf-8", "surrogatepass"), digest_size=4)
    own = {"images": f"{len(ids)}/{num_images},{digest.hexdigest()}", "split": split}
    parts = [part.partition(":") for part in whole.split("|")]
    return "|".join(f"{key}{colon}{own.get(key, value)}" for key, colon, value in parts)


@dataclass(frozen=True, eq=False)
class _OfColumns:
    """The `resample` of some images (n) of a score of `total`: weights (R, n) to values (R,)."""

    resample: Callable[[np.ndarray], np.ndarray]
    columns: np.ndarray
    total: int

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        rows = max(1, _BLOCK // self.total)
        return np.concatenate(
            [self._of_rows(weights[start : start + rows]) for start in range(0, len(weights), rows)]
        )

    def _of_rows(self, weights: np.ndarray) -> np.ndarray:
        widened = np.zeros((len(weights), self.total))
        widened[:, self.columns] = weights
        return self.resample(widened)
