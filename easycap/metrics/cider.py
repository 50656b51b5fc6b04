"""CIDEr-D (Vedantam et al., CVPR 2015, section 6), equal to what pycocoevalcap calls CIDEr; also as a reward.

n-grams of 1 to 4 words are weighted by log(N / images that use them); a caption is as similar to a reference
as their clipped cosine times a Gaussian of the difference in length; the score is the mean over n and
references, times 10.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from easycap.errors import UserError
from easycap.metrics.corpus import Corpus, prepare
from easycap.metrics.document_frequencies import EOS, DocumentFrequencies
from easycap.metrics.ngrams import MAX_N, Level, NgramCounts, count_ngrams
from easycap.metrics.signature import VERSION, signature
from easycap.metrics.tokenizer import tokenize, version
from easycap.registry import register
from easycap.types import Score

log = logging.getLogger(__name__)

_SIGMA = 6.0
# Below this many images the document frequencies of the scored references say little.
FEW_IMAGES = 100


@register("scorer", "cider_d")
class CiderD:
    """CIDEr-D, where 1.0 is what papers print as 100.

    `df=None` takes the document frequencies from the scored references, as published numbers do; such scores
    of different sets of images are not comparable. A fixed `df` makes them so.
    """

    names = ("CIDEr-D",)

    def __init__(self, *, df: DocumentFrequencies | None = None) -> None:
        if df is not None and df.eos:
            raise UserError("these document frequencies count an end token (eos); build them with eos=False")
        self.df = df

    def __call__(
        self,
        captions: Mapping[str, str],
        references: Mapping[str, Sequence[str]],
        annotations: Mapping[str, Any] | None = None,
    ) -> dict[str, Score]:
        """Return CIDEr-D; see `Scorer`."""
        return self.score_corpus(prepare(captions, references))

    def score_corpus(self, corpus: Corpus) -> dict[str, Score]:
        """Return the score of a prepared corpus, with which several scorers share the work."""
        images = np.arange(len(corpus.ids))
        owners = np.repeat(images, [len(references) for references in corpus.references])
        df = self.df or DocumentFrequencies.from_counts(
            corpus.reference_ngrams, owners, len(images), source="refs"
        )
        if self.df is None and len(corpus.ids) < FEW_IMAGES:
            _warn_of_few(len(corpus.ids))
        values = _References(corpus.reference_ngrams, owners, df).score(corpus.caption_ngrams, images)
        per_image = dict(zip(corpus.ids, values.tolist(), strict=True))
        text = signature("CIDEr-D", corpus, n=MAX_N, sigma=_SIGMA, df=df.signature, eos="no")
        return {"CIDEr-D": Score(float(values.mean()), per_image, text)}


@cache
def _warn_of_few(num_images: int) -> None:
    # Once per number of images: a model and its baselines are scored together.
    log.warning(
        "CIDEr-D with document frequencies from only %d image%s cannot be compared with other results",
        num_images,
        "s" * (num_images != 1),
    )


class CiderReward:
    """CIDEr-D of sampled captions against cached references, for training.

    With `eos` every reference ends with an end token, and so does a caption unless it was cut off (`ended`
    False); without it fragments such as "a man on a" are rewarded (Rennie et al., CVPR 2017, appendix E).
    `weights`, positive, say how much each reference counts in the mean; None: all the same.
    """

    name = "CIDEr-D"

    def __init__(
        self,
        *,
        references: Mapping[str, Sequence[str]],
        df: DocumentFrequencies,
        eos: bool = True,
        weights: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        if df.eos != eos:
            raise UserError(
                f"df was built with eos={df.eos} and the reward wants eos={eos}; build df with the same"
            )
        self.eos, self.df = eos, df
        self._rows = {image_id: row for row, image_id in enumerate(references)}
        self._tokenizer = version(text for texts in references.values() for text in texts)
        end = [EOS] if eos else []
        sentences = [tokenize(text) + end for texts in references.values() for text in texts]
        owners = np.repeat(np.arange(len(references)), [len(texts) for texts in references.values()])
        flat = None
        if weights is not None:
            flat = np.array([weight for image_id in references for weight in weights[image_id]])
        self._references = _References(count_ngrams(sentences), owners, df, flat)

    @property
    def signature(self) -> str:
        """All that changes a reward: unlike a score's, not which captions are rewarded."""
        settings = {
            "v": VERSION,
            "tok": self._tokenizer,
            "n": MAX_N,
            "sigma": _SIGMA,
            "df": self.df.signature,
        }
        settings["eos"] = "yes" if self.eos else "no"
        return "|".join([self.name, *(f"{key}:{value}" for key, value in settings.items())])

    def __call__(
        self, ids: Sequence[str], captions: Sequence[str], ended: Sequence[bool] | None = None
    ) -> np.ndarray:
        """Return the reward (B,) of B captions of the images `ids` (B); an image may come several times.

        `ended` (B) says which captions came to their end token, all by default; it is read only with `eos`.
        """
        ends = [True] * len(captions) if ended is None else ended
        sentences = [
            tokenize(text) + ([EOS] if self.eos and end else [])
            for text, end in zip(captions, ends, strict=True)
        ]
        images = np.array([self._rows[image_id] for image_id in ids], np.int64)
        return self._references.score(count_ngrams(sentences), images)


class _References:
    """Weighted reference vectors as postings: for every (image, n-gram), the references that use it."""

    def __init__(
        self,
        counts: NgramCounts,
        owners: np.ndarray,
        df: DocumentFrequencies,
        weights: np.ndarray | None = None,
    ) -> None:
        """owners (S,) is the image of each of the S reference sentences, weights (S,) how much each counts in the
        mean over those of its image; images are numbered from 0.
        """
        self._df, self._tree, self._owners = df, counts.tree, owners
        self._lengths = counts.lengths
        self._weights = np.ones(len(owners)) if weights is None else weights
        self._total_weight = np.bincount(owners, self._weights)
        self._postings = [
            _Postings(level, idf[level.grams], owners, len(counts.lengths))
            for level, idf in zip(counts.levels, df.idf(counts.tree), strict=True)
        ]

    def score(self, counts: NgramCounts, images: np.ndarray) -> np.ndarray:
        """Return CIDEr-D (B,) of B sentences against the references of their images (B,)."""
        total = np.zeros(len(images))
        found = self._tree.find(counts.tree)
        idfs = self._df.idf(counts.tree)
        for level, grams, idf, postings in zip(counts.levels, found, idfs, self._postings, strict=True):
            captions, references, cosines = postings.cosines(level, grams, idf, images)
            delta = _bigrams(counts.lengths)[captions] - _bigrams(self._lengths)[references]
            near = np.exp(-(delta**2) / (2 * _SIGMA**2)) * self._weights[references]
            total += np.bincount(captions, cosines * near, len(images))
        return 10 * total / MAX_N / self._total_weight[images]


def _bigrams(lengths: np.ndarray) -> np.ndarray:
    """The "length" of the Gaussian penalty is the number of bigrams."""
    return np.maximum(0, lengths - 1)


class _Postings:
    """The references of one n, sorted by (image, n-gram)."""

    def __init__(self, level: Level, idf: np.ndarray, owners: np.ndarray, num_references: int) -> None:
        self._size = max(1, len(level.keys))
        weights = level.counts * idf
        self._norms = np.sqrt(np.bincount(level.sentences, weights**2, num_references))
        keys = owners[level.sentences] * self._size + level.grams
        order = np.argsort(keys, kind="stable")
        self._keys, self._references, self._weights = keys[order], level.sentences[order], weights[order]

    def cosines(
        self, level: Level, grams: np.ndarray, idf: np.ndarray, images: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (caption, reference, term of their cosine) of every n-gram that two of them share."""
        weights = level.counts * idf[level.grams]
        norms = np.sqrt(np.bincount(level.sentences, weights**2, len(images)))
        here = grams[level.grams]
        keys = np.where(here < 0, -1, images[level.sentences] * self._size + here)
        first, last = np.searchsorted(self._keys, keys, "left"), np.searchsorted(self._keys, keys, "right")
        repeats = last - first
        rows = np.repeat(np.arange(len(keys)), repeats)
        places = np.arange(len(rows)) - np.repeat(np.cumsum(repeats) - repeats, repeats) + first[rows]
        captions, references = level.sentences[rows], self._references[places]
        terms = np.minimum(weights[rows], self._weights[places]) * self._weights[places]
        scale = norms[captions] * self._norms[references]
        return captions, references, np.divide(terms, scale, out=np.zeros_like(terms), where=scale > 0)
