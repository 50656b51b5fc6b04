"""What captions sampled in training are rewarded for: a weighted sum of metrics, each caption on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from easycap.errors import UserError
from easycap.metrics.cider import CiderReward
from easycap.metrics.document_frequencies import DocumentFrequencies
from easycap.metrics.scoring import score
from easycap.registry import describe_choices
from easycap.utils.segmenters import SPACES, Segmenter

_CIDER = CiderReward.name


def rewarded(weights: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics whose weight is not 0; `UserError` if there is none."""
    found = {name: weight for name, weight in weights.items() if weight}
    if not found:
        raise UserError("objective.rewards is empty: name metrics with their weights, e.g. {CIDEr-D: 1.0}")
    return found


class Rewards:
    """Metrics by their printed names, with weights: captions of training images -> what each earns.

    CIDEr-D uses the fixed document frequencies `df`; they and it count an end token or do not (`eos`). Any other
    metric of `scorers` may have a weight, also one that reads `annotations`. A weight of 0 is none.
    Raises `UserError` for a metric that does not exist and if nothing is rewarded.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        eos: bool,
        references: Mapping[str, Sequence[str]],
        annotations: Mapping[str, Any],
        scorers: Sequence[str],
        df: DocumentFrequencies,
        segmenter: Segmenter = SPACES,
    ) -> None:
        self.weights = rewarded(weights)
        # Segmented once, not in every step.
        references = {image_id: [*map(segmenter, texts)] for image_id, texts in references.items()}
        self._references, self._annotations, self._segmenter = references, annotations, segmenter
        givers = self._scorers_of([name for name in scorers if name != "cider_d"])
        for name in self.weights:
            if name not in (allowed := {_CIDER, *givers}):
                raise UserError(
                    f"objective.rewards: {name!r} is not measured; {describe_choices(name, allowed)}"
                )
        self._scorers = sorted({givers[name] for name in self.weights if name != _CIDER})
        self._cider = CiderReward(references=references, df=df, eos=eos) if _CIDER in self.weights else None

    def __call__(
        self, ids: Sequence[str], captions: Sequence[str], ended: Sequence[bool]
    ) -> dict[str, np.ndarray]:
        """Return {metric: (B,)} of B captions of the images `ids` (B); `ended` (B): they came to their end token."""
        found: dict[str, np.ndarray] = {}
        if self._cider:
            found[_CIDER] = self._cider(ids, [*map(self._segmenter, captions)], ended)
        if self._scorers:
            found |= self._scored(ids, captions, self._scorers)
        return {name: found[name] for name in self.weights}

    def total(self, found: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the weighted sum (B,)."""
        return np.sum([weight * found[name] for name, weight in self.weights.items()], axis=0)

    @property
    def signature(self) -> str:
        """Weights and metrics; of CIDEr-D whatever changes its value."""
        names = {
            name: self._cider.signature if name == _CIDER and self._cider else name for name in self.weights
        }
        return " + ".join(f"{weight:g} {names[name]}" for name, weight in self.weights.items())

    def _scored(
        self, ids: Sequence[str], captions: Sequence[str], scorers: Sequence[str]
    ) -> dict[str, np.ndarray]:
        # An image comes several times, so a row's number is its id here.
        rows = {str(row): image_id for row, image_id in enumerate(ids)}
        scores = score(
            dict(zip(rows, captions, strict=True)),
            {row: self._references[image_id] for row, image_id in rows.items()},
            annotations={row: self._annotations.get(image_id) for row, image_id in rows.items()},
            scorers=scorers,
            intervals=False,
            segmenter=self._segmenter,
        )
        return {name: np.array([one.per_image[row] for row in rows]) for name, one in scores.items()}

    def _scorers_of(self, scorers: Sequence[str]) -> dict[str, str]:
        """Return which scorer gives which metric, found by scoring a reference."""
        image_id, references = next(iter(self._references.items()))
        return {
            metric: scorer
            for scorer in scorers
            for metric in self._scored([image_id], references[:1], [scorer])
        }
