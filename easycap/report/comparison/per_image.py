"""Per-image values of all runs side by side, and the images worth looking at."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from easycap.report.comparison.read_runs import Comparison, Run
from easycap.runs.reading import read_gallery
from easycap.runs.samples import Sample
from easycap.utils.text import is_number

MOST_DIFFERENT, AT_RANDOM = 8, 4


@dataclass(frozen=True)
class PerImage:
    """Values (N,) of one metric per run number, all in the order of `ids`; of runs whose score is their mean."""

    ids: tuple[str, ...]
    values: Mapping[int, np.ndarray]


@dataclass(frozen=True)
class DistinctCaption:
    """One caption of an image, its score, and the numbers of the runs that gave it."""

    caption: str
    score: float | None
    runs: tuple[int, ...]


@dataclass(frozen=True)
class Captioned:
    """One test image with all captions it got, best first; `chosen` says why it is shown."""

    sample: Sample
    chosen: str
    captions: tuple[DistinctCaption, ...]


def per_image(comparison: Comparison) -> dict[str, PerImage]:
    """Return, by metric, the per-image values of the runs under the common protocol."""
    found: dict[str, dict[int, Mapping[str, float]]] = {metric: {} for metric in comparison.metrics}
    for run in comparison.runs:
        stored = _read(run.folder / f"per_image.{comparison.split}.json")
        for metric, values in stored.items() if isinstance(stored, Mapping) else ():
            known = metric in found and run in comparison.comparable(metric)
            if known and _is_mean(values, comparison.score(run, metric)):
                found[metric][run.number] = values
    return {metric: _aligned(of) for metric, of in found.items() if of}


def _is_mean(values: Any, score: Mapping[str, Any] | None) -> bool:
    if not isinstance(values, Mapping) or not values or score is None:
        return False
    if not all(map(is_number, values.values())):
        return False
    return math.isclose(math.fsum(values.values()) / len(values), score["value"], abs_tol=1e-9)


def _aligned(values: Mapping[int, Mapping[str, float]]) -> PerImage:
    first = next(iter(values.values()))
    ids = tuple(sorted(first))
    same = {run: of for run, of in values.items() if of.keys() == first.keys()}
    return PerImage(ids, {run: np.array([of[image] for image in ids]) for run, of in same.items()})


def chosen_images(comparison: Comparison, values: PerImage | None) -> list[Captioned]:
    """Return the images of which the runs' scores differ most, and some at random, of those that a run kept a
    picture of; their captions are those of the runs under the common protocol of the first metric.
    """
    runs = comparison.comparable(comparison.metrics[0])
    samples: dict[str, Sample] = {}
    for run in runs:
        for sample in read_gallery(run.folder, comparison.split):
            if sample.image is not None:
                samples.setdefault(sample.id, sample)
    indices = {image: index for index, image in enumerate(values.ids)} if values else {}
    spread = np.std(list(values.values.values()), axis=0) if values else np.zeros(0)
    ranked = sorted(
        (image for image in samples if image in indices and spread[indices[image]] > 0),
        key=lambda image: (-spread[indices[image]], image),
    )
    different = ranked[:MOST_DIFFERENT]
    rest = sorted(samples.keys() - set(different))
    others = random.Random(0).sample(rest, min(AT_RANDOM, len(rest)))
    captions = _captions(comparison, runs, {*different, *others})
    reasons = {image: "runs differ most" for image in different} | dict.fromkeys(others, "at random")
    return [
        Captioned(samples[image], reason, _distinct(captions[image], values, indices.get(image)))
        for image, reason in reasons.items()
    ]


def _captions(
    comparison: Comparison, runs: Sequence[Run], images: set[str]
) -> dict[str, list[tuple[int, str]]]:
    """{image: (run number, caption) of every run}; only the chosen images are kept of each file."""
    found: dict[str, list[tuple[int, str]]] = {image: [] for image in images}
    for run in runs:
        rows = _read(run.folder / f"captions.{comparison.split}.json")
        for row in rows if isinstance(rows, list) else ():
            image = str(row.get("image_id")) if isinstance(row, Mapping) else ""
            if image in found:
                found[image].append((run.number, str(row.get("caption", ""))))
    return found


def _distinct(
    captions: Sequence[tuple[int, str]], values: PerImage | None, index: int | None
) -> tuple[DistinctCaption, ...]:
    by_text: dict[str, list[int]] = {}
    for run, caption in captions:
        by_text.setdefault(caption, []).append(run)
    found = []
    for caption, runs in by_text.items():
        score = None
        if values and index is not None:
            score = next((float(values.values[run][index]) for run in runs if run in values.values), None)
        found.append(DistinctCaption(caption, score, tuple(runs)))
    return tuple(sorted(found, key=lambda one: (-(one.score if one.score is not None else -1), one.runs[0])))


def _read(path: Path) -> Any:
    """What a JSON file holds; None where it is missing or half written: an old or running run."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
