"""Scores of several captions per image: how good they are on average, and how different from each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

from easycap.errors import UserError
from easycap.metrics.corpus import References, caption_rows, match_ids, normal_id, references_by_id
from easycap.metrics.diversity import diversity
from easycap.metrics.document_frequencies import DocumentFrequencies
from easycap.metrics.intervals import with_intervals
from easycap.metrics.scoring import Scores, marked, score
from easycap.types import Score
from easycap.utils.segmenters import SPACES, Segmenter

# {id: captions}, or the rows of a COCO results file in which an id comes several times.
CaptionSamples = Mapping[Any, Sequence[str]] | Iterable[Mapping[str, Any]]


def score_samples(
    captions: CaptionSamples,
    references: References,
    *,
    df: DocumentFrequencies | None = None,
    split: str | None = None,
    oracles: Sequence[str] = (),
    intervals: bool = True,
    segmenter: Segmenter = SPACES,
    **chosen: Any,
) -> Scores:
    """Score K captions per image: each metric's mean over the K, and Div-1, Div-2, self-CIDEr of all of them.

    `chosen` are the arguments of `score` besides these. self-CIDEr weighs n-grams by `df`, by default from the scored
    references. Raises `UserError` as `score` does, and unless every image has as many captions, two at least.
    """
    wanted = references_by_id(references)
    texts = match_ids(samples_by_id(captions), wanted)
    rounds = [{i: group[k] for i, group in texts.items()} for k in range(len(next(iter(texts.values()), ())))]
    if not rounds:
        raise UserError("there is nothing to score: no image has a caption")
    found = [
        score(
            one,
            references,
            df=df,
            split=split,
            oracles=oracles,
            intervals=False,
            segmenter=segmenter,
            **chosen,
        )
        for one in rounds
    ]
    scores = {name: _mean([one[name] for one in found]) for name in found[0] if all(name in f for f in found)}
    df = df or DocumentFrequencies.from_references(
        (wanted[i] for i in sorted(texts)), source="refs", segmenter=segmenter
    )
    scores |= {
        name: marked(one, split, oracles)
        for name, one in diversity(texts, df=df, segmenter=segmenter).items()
    }
    absent = {name: reason for one in found for name, reason in one.absent.items()}
    counts = {**found[0].counts, "captions": len(rounds) * len(texts)}
    counts["empty_captions"] = sum(one.counts["empty_captions"] for one in found)
    return Scores(with_intervals(scores) if intervals else scores, absent, counts)


def samples_by_id(captions: CaptionSamples) -> dict[str, list[str]]:
    """Return {id: captions}; raises `UserError` for one that is not a string, or unless all images have as many."""
    texts: dict[str, list[str]] = {}
    for image_id, one in caption_rows(captions):
        image_id = normal_id(image_id)
        for text in [one] if isinstance(one, str) or not isinstance(one, Sequence) else one:
            if not isinstance(text, str):
                raise UserError(f"a caption of image {image_id!r} is {text!r:.60}, not a string")
            texts.setdefault(image_id, []).append(text)
        texts.setdefault(image_id, [])
    most = max(map(len, texts.values()), default=0)
    for image_id, group in texts.items():
        if len(group) != most or most < 2:
            raise UserError(
                f"image {image_id!r} has {len(group)} captions where every image needs the same number, two at least"
                + (f"; another has {most}" if len(group) != most else "")
            )
        # The same order whatever the file's, and no bias of the k-th captions.
        group.sort(key=lambda text: (crc32(text.encode("utf-8", "surrogatepass")), text))
    return texts


def _mean(scores: Sequence[Score]) -> Score:
    """The mean of K scores of the same images, each image's and the corpus'."""
    first, size = scores[0], len(scores)
    per_image = {i: sum(one.per_image[i] for one in scores) / size for i in first.per_image}
    resample = None if first.resample is None else _MeanOf([one.resample for one in scores if one.resample])
    text = f"{first.signature}|captions:mean of {size}"
    return Score(sum(one.value for one in scores) / size, per_image, text, resample=resample)


@dataclass(frozen=True, eq=False)
class _MeanOf:
    """The `resample` of a mean: weights (R, N) to corpus values (R,)."""

    parts: Sequence[Callable[[np.ndarray], np.ndarray]]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        return np.mean([part(weights) for part in self.parts], axis=0)
