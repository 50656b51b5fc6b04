"""Scores of tags: mean average precision over tags, and precision, recall and F1 of the k likeliest of an image."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from easycap.errors import UserError
from easycap.metrics.intervals import FromStatistics, with_intervals
from easycap.types import Score

VERSION = 1
AT = (3, 5)  # how many of an image's likeliest tags are looked at
METRICS = ("mAP", *(f"{kind}@{k}" for k in AT for kind in ("precision", "recall", "F1")))


def tag_scores(
    probabilities: Mapping[str, np.ndarray],
    truth: Mapping[str, Collection[str]],
    tags: Sequence[str],
    *,
    split: str,
    intervals: bool = True,
) -> dict[str, Score]:
    """Return mAP, and precision@k, recall@k and F1@k for the k of AT, 0..1.

    `probabilities` {id: (tags,)} are a model's, `truth` {id: tags of the image}. mAP is the mean over the tags that
    some image has of the average precision of all images ranked by the tag's probability; equal ones in order of their
    ids. Precision, recall and F1 are those of all images' k likeliest tags together ("overall"). Raises `UserError`
    if the ids differ or no image has tags.
    """
    ids, likely, there = _tables(probabilities, truth, tags)
    data = hashlib.blake2b("".join(f"{i}:{sorted(truth[i])}" for i in ids).encode(), digest_size=4)
    text = f"v:{VERSION}|tags:{len(tags)}|images:{len(ids)}|data:{data.hexdigest()}|split:{split}"
    scores = {"mAP": _mean_average_precision(ids, likely, there, text)}
    for k in AT:
        scores |= _at(k, ids, likely, there, text)
    return with_intervals(scores) if intervals else scores


def per_tag(
    probabilities: Mapping[str, np.ndarray], truth: Mapping[str, Collection[str]], tags: Sequence[str]
) -> list[dict[str, Any]]:
    """Return a row for each tag, in their order: the number of images that have it, its average precision, and its
    precision, recall and F1 as one of an image's AT[0] likeliest; None where it is not defined.
    """
    _, likely, there = _tables(probabilities, truth, tags)
    chosen = _chosen(likely, AT[0])
    rows = []
    for column, tag in enumerate(tags):
        has, predicted = there[:, column], chosen[:, column]
        both = int((has & predicted).sum())
        average = float(_average_precisions(likely[:, column], has, np.ones((1, len(has))))[0])
        rows.append(
            {
                "tag": tag,
                "images": int(has.sum()),
                "average_precision": average if has.any() else None,
                "precision": both / int(predicted.sum()) if predicted.any() else None,
                "recall": both / int(has.sum()) if has.any() else None,
                "F1": 2 * both / int(has.sum() + predicted.sum()) if has.any() or predicted.any() else None,
            }
        )
    return rows


def _tables(
    probabilities: Mapping[str, np.ndarray], truth: Mapping[str, Collection[str]], tags: Sequence[str]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Ids, probabilities (N, tags), and which tags are there (N, tags)."""
    if probabilities.keys() != truth.keys():
        odd = min(probabilities.keys() ^ truth.keys())
        raise UserError(f"images with probabilities and images with tags must be the same; {odd!r} is not")
    ids = sorted(truth)
    there = np.array([[tag in found for tag in tags] for found in (set(truth[i]) for i in ids)])
    if not there.any():
        raise UserError("no image has a tag of the vocabulary: there is nothing to score")
    return ids, np.array([probabilities[i] for i in ids], dtype=float), there


def _mean_average_precision(ids: list[str], likely: np.ndarray, there: np.ndarray, text: str) -> Score:
    used = np.flatnonzero(there.any(0))

    def resample(weights: np.ndarray) -> np.ndarray:
        found = np.stack([_average_precisions(likely[:, c], there[:, c], weights) for c in used])
        # A tag that no drawn image has does not count.
        return np.nansum(found, axis=0) / np.maximum(1, np.isfinite(found).sum(0))

    value = float(resample(np.ones((1, len(ids))))[0])
    # Of one image: how well its tags rank among all tags, 0 for one without tags.
    rows = [
        _average_precisions(p, has, np.ones((1, len(p))))[0] for p, has in zip(likely, there, strict=True)
    ]
    per_image = dict(zip(ids, np.nan_to_num(rows).tolist(), strict=True))
    return Score(value, per_image, f"mAP|{text}", resample=resample)


def _average_precisions(likely: np.ndarray, there: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision of a ranking under weights (R,N) of its items: (R,), nan where none that is there counts."""
    order = np.argsort(-likely, kind="stable")
    weights, there = weights[:, order], there[order]
    right = weights * there
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.cumsum(right, 1)[:, there] / np.cumsum(weights, 1)[:, there]
        return np.nansum(precision * right[:, there], axis=1) / right.sum(1)


def _chosen(likely: np.ndarray, k: int) -> np.ndarray:
    """Which tags are among the k likeliest of their image (N, tags)."""
    order = np.argsort(-likely, axis=1, kind="stable")[:, :k]
    chosen = np.zeros(likely.shape, dtype=bool)
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen


def _at(k: int, ids: list[str], likely: np.ndarray, there: np.ndarray, text: str) -> dict[str, Score]:
    chosen = _chosen(likely, k)
    counts = np.stack([(chosen & there).sum(1), chosen.sum(1), there.sum(1)], 1).astype(float)
    columns = {f"precision@{k}": _precision, f"recall@{k}": _recall, f"F1@{k}": _f1}
    return {
        name: Score(
            float(formula(counts.sum(0))),
            dict(zip(ids, formula(counts).tolist(), strict=True)),
            f"{name}|{text}",
            resample=FromStatistics(counts, formula),
        )
        for name, formula in columns.items()
    }


def _share(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _precision(counts: np.ndarray) -> np.ndarray:
    """counts (..., 3): right, chosen, there."""
    return _share(counts[..., 0], counts[..., 1])


def _recall(counts: np.ndarray) -> np.ndarray:
    return _share(counts[..., 0], counts[..., 2])


def _f1(counts: np.ndarray) -> np.ndarray:
    return _share(2 * counts[..., 0], counts[..., 1] + counts[..., 2])
