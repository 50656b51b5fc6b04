"""Scores and scorers, and where a run writes what it measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Score:
    """One metric on one set of captions.

    `per_image` is keyed by image id. `resample`, where set, maps bootstrap weights (resamples, images), in
    per_image's order, to corpus values (resamples,); without it the corpus value is the mean of per_image.
    """

    value: float
    per_image: Mapping[str, float]
    signature: str
    low: float | None = None
    high: float | None = None
    resample: Callable[[np.ndarray], np.ndarray] | None = field(default=None, repr=False, compare=False)


class Scorer(Protocol):
    """Scores captions. Ids of captions and references must agree; strings and numbers only.

    A metric of captions and references alone is a class with `score_corpus(corpus) -> {metric: Score}`, which is then
    called instead: all of them share one tokenised `metrics.corpus.Corpus`. Only those can be named with --metrics.
    `names`, a tuple, holds the metrics' printed names where they are fixed. A constructor may take `df`, the document
    frequencies, and needs no other argument.
    """

    def __call__(
        self,
        captions: Mapping[str, str],
        references: Mapping[str, Sequence[str]],
        annotations: Mapping[str, Any] | None = None,
    ) -> dict[str, Score]:
        """Return {metric: score}."""


class Tracker(Protocol):
    """Where a run writes what it measures: its own folder first, W&B, TensorBoard or MLflow as mirrors."""

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Record numbers of a step."""

    def samples(self, rows: Sequence[Mapping[str, Any]], *, step: int, epoch: int) -> None:
        """Captions of a few fixed validation images: {"id", "image": ImageSource, "caption", "references"}."""

    def finish(self, result: Mapping[str, Any] | None, *, status: str, error: str | None = None) -> None:
        """Record how the run ended: result.json, completed, failed or interrupted, and the error in a line."""


def has_oracle(config: Mapping[str, Any]) -> bool:
    """Return whether the captioner of a config reads an image's own tags or references at test time, too."""
    return any(isinstance(group, Mapping) and group.get("name") == "oracle" for group in config.values())
