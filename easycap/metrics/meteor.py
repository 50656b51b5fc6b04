"""METEOR 1.5 (Denkowski and Lavie, WMT 2014) through the jar that pycocoevalcap brings.

The jar aligns each caption with its best reference (the first, if none matches) and returns 23 counts. The
score is computed here from them, so that corpus values, the same formula on summed counts, can be resampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from easycap.metrics.corpus import Corpus, prepare
from easycap.metrics.intervals import FromStatistics
from easycap.metrics.java import Absent, bundled_jar, run_java
from easycap.metrics.signature import signature
from easycap.registry import register
from easycap.types import Score
from easycap.utils.segmenters import SPACES

# The English parameters of version 1.5, and the weights of exact, stem, synonym and paraphrase matches.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_STAGES = np.array([1.0, 0.6, 0.8, 0.6])
_NUM_COUNTS = 23


@register("scorer", "meteor")
class Meteor:
    """METEOR, 0..1, absent without Java; about 30 s and 1.4 GiB for 5,000 images with 4 references."""

    names = ("METEOR",)

    def __init__(self, *, java: str = "java", seconds: float = 900.0, jar: str | None = None) -> None:
        self.java, self.seconds, self.jar = java, seconds, jar

    def __call__(
        self,
        captions: Mapping[str, str],
        references: Mapping[str, Sequence[str]],
        annotations: Mapping[str, Any] | None = None,
    ) -> dict[str, Score]:
        """Return METEOR; see `Scorer`."""
        return self.score_corpus(prepare(captions, references))

    def score_corpus(self, corpus: Corpus) -> dict[str, Score]:
        """Return the score of a prepared corpus; raises `Absent` with the reason if Java fails."""
        if corpus.segmenter is not SPACES:
            raise Absent(
                f"its stems, synonyms and paraphrases are English, and captions are cut by {corpus.segmenter.name}"
            )
        counts = self._counts(corpus)
        values = meteor_from_counts(counts)
        return {
            "METEOR": Score(
                value=float(meteor_from_counts(counts.sum(axis=0))),
                per_image=dict(zip(corpus.ids, values.tolist(), strict=True)),
                signature=signature("METEOR", corpus, meteor="1.5", lang="en,norm"),
                resample=FromStatistics(counts, meteor_from_counts),
            )
        }

    def _counts(self, corpus: Corpus) -> np.ndarray:
        jar = Path(self.jar).resolve() if self.jar else bundled_jar("meteor/meteor-1.5.jar")
        lines = [_line(c, r) for c, r in zip(corpus.captions, corpus.references, strict=True)]
        arguments = ["-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
        output = run_java(arguments, java=self.java, seconds=self.seconds, text="".join(lines))
        rows = output.splitlines()
        if len(rows) != len(lines):
            raise Absent(f"the METEOR jar answered {len(rows)} lines for {len(lines)} captions")
        return _whole(np.array([_numbers(row) for row in rows]))


def _line(caption: Sequence[str], references: Sequence[Sequence[str]]) -> str:
    # Tokens contain no line end, and no "|||", which separates fields.
    fields = ["SCORE", *(" ".join(tokens) for tokens in references), " ".join(caption)]
    return " ||| ".join(field.replace("|||", "") for field in fields) + "\n"


def _numbers(row: str) -> list[float]:
    try:
        numbers = [float(part) for part in row.split()]
    except ValueError:
        numbers = []
    if len(numbers) != _NUM_COUNTS:
        raise Absent(f"the METEOR jar answered {row[:80]!r} instead of {_NUM_COUNTS} numbers")
    return numbers


def _whole(counts: np.ndarray) -> np.ndarray:
    """Set the chunks of captions that equal their reference to 0: they are not fragmented at all."""
    chunks, matched, reference_matched = counts[:, 20], counts[:, 21], counts[:, 22]
    same = (matched == counts[:, 0]) & (reference_matched == counts[:, 1]) & (chunks == 1)
    counts[:, 20] = np.where(same, 0, chunks)
    return counts


def meteor_from_counts(counts: np.ndarray) -> np.ndarray:
    """Turn counts (..., 23), of one image or summed, into METEOR (...).

    They are: words of caption and reference, function words of both; per stage the matched content words of
    both and the matched function words of both; chunks; matched words of both.
    """
    stages = counts[..., 4:20].reshape(*counts.shape[:-1], 4, 4)
    sides = []
    for side in (0, 1):
        matched = _DELTA * stages[..., side] + (1 - _DELTA) * stages[..., side + 2]
        length, function = counts[..., side], counts[..., side + 2]
        total = _DELTA * (length - function) + (1 - _DELTA) * function
        sides.append(_ratio((matched * _STAGES).sum(axis=-1), total))
    precision, recall = sides
    mean = _ratio(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall)
    fragmentation = _ratio(counts[..., 20], (counts[..., 21] + counts[..., 22]) / 2)
    return mean * (1 - _GAMMA * fragmentation**_BETA)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros_like(above, dtype=float), where=below > 0)
