"""What captions sampled in training are rewarded for: a weighted sum of metrics, each caption on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from easycap.metrics.cider import CiderReward
from easycap.metrics.document_frequencies import DocumentFrequencies
from easycap.metrics.scoring import score
from easycap.registry import describe_choices

_CIDER = CiderReward.name


class Rewards:
    """Metrics by their printed names, with weights: captions of training images -> what each earns.

    CIDEr-D uses the fixed document frequencies `df`; they and it count an end token or do not (`eos`). Any other
    metric of `scorers` may have a weight, also one that reads `annotations`. A weight of 0 is none.
    Raises `ValueError` for a metric that does not exist and if nothing is rewarded.
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
    ) -> None:
        self.weights = {name: weight for name, weight in weights.items() if weight}
        if not self.weights:
            raise ValueError(
                "objective.rewards is empty: name metrics with their weights, e.g. {CIDEr-D: 1.0}"
            )
        self._references, self._annotations = references, annotations
        givers = self._givers([name for name in scorers if name != "cider_d"])
        for name in self.weights:
            if name not in (allowed := {_CIDER, *givers}):
                raise ValueError(
                    f"objective.rewards: {name!r} is not measured; {describe_choices(name, allowed)}"
                )
        self._scorers = sorted({givers[name] for name in self.weights if name != _CIDER})
        self._cider = CiderReward(references=references, df=df, eos=eos) if _CIDER in self.weights else None

    def __call__(
        self, ids: Sequence[str], captions: Sequence[str], ended: Sequence[bool]
    ) -> dict[str, np.ndarray]:
        """Return {metric: (B,)} of B captions of the images `ids` (B); `ended` (B): they came to their end token."""
        found = {}
        if self._cider:
            found[_CIDER] = self._cider(ids, captions, ended)
        if self._scorers:
            found |= self._scored(ids, captions, self._scorers)
        return {name: found[name] for name in self.weights}

    def total(self, found: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the weighted sum (B,)."""
        return sum(weight * found[name] for name, weight in self.weights.items())

    @property
    def signature(self) -> str:
        """Weights and metrics; of CIDEr-D whatever changes its value."""
        names = {name: name if name != _CIDER else self._cider.signature for name in self.weights}
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
        )
        return {name: np.array([one.per_image[row] for row in rows]) for name, one in scores.items()}

    def _givers(self, scorers: Sequence[str]) -> dict[str, str]:
        """Return which scorer gives which metric, found by scoring a reference."""
        image_id, references = next(iter(self._references.items()))
        return {
            metric: scorer
            for scorer in scorers
            for metric in self._scored([image_id], references[:1], [scorer])
        }
