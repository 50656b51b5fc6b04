"""BLEU-1..4 as the COCO evaluation computes it (Papineni et al., ACL 2002; pycocoevalcap, "closest")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from easycap.metrics.corpus import Corpus, prepare
from easycap.metrics.intervals import FromStatistics
from easycap.metrics.ngrams import MAX_N, positions
from easycap.metrics.signature import signature
from easycap.registry import register
from easycap.types import Score

# Keep a ratio defined when a caption has no n-gram: 0 correct of 0 is then 1e-6, as in pycocoevalcap.
_TINY, _SMALL = 1e-15, 1e-9


@register("scorer", "bleu")
class Bleu:
    """BLEU-1..4, 0..1; a corpus value comes from summed counts and is not the mean over images."""

    names = tuple(f"BLEU-{n}" for n in range(1, MAX_N + 1))

    def __call__(
        self,
        captions: Mapping[str, str],
        references: Mapping[str, Sequence[str]],
        annotations: Mapping[str, Any] | None = None,
    ) -> dict[str, Score]:
        """Return BLEU-1 to BLEU-4; see `Scorer`."""
        return self.score_corpus(prepare(captions, references))

    def score_corpus(self, corpus: Corpus) -> dict[str, Score]:
        """Return the scores of a prepared corpus, with which several scorers share the work."""
        statistics = bleu_statistics(corpus)
        values, per_image = bleu_from_statistics(statistics.sum(axis=0)), bleu_from_statistics(statistics)
        return {
            name: Score(
                value=float(values[n]),
                per_image=dict(zip(corpus.ids, per_image[:, n].tolist(), strict=True)),
                signature=signature(name, corpus, reflen="closest"),
                resample=FromStatistics(statistics, partial(_one_bleu, n=n)),
            )
            for n, name in enumerate(self.names)
        }


def _one_bleu(statistics: np.ndarray, *, n: int) -> np.ndarray:
    return bleu_from_statistics(statistics)[..., n]


def bleu_from_statistics(statistics: np.ndarray) -> np.ndarray:
    """Turn (..., 10) statistics, of one image or summed over images, into BLEU-1..4 (..., 4)."""
    correct, guessed = statistics[..., :MAX_N], statistics[..., MAX_N : 2 * MAX_N]
    length, reference_length = statistics[..., -2:-1], statistics[..., -1:]
    precision = np.cumprod((correct + _TINY) / (guessed + _SMALL), axis=-1)
    ratio = (length + _TINY) / (reference_length + _SMALL)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return precision ** (1 / np.arange(1, MAX_N + 1)) * brevity


def bleu_statistics(corpus: Corpus) -> np.ndarray:
    """Return per image (N, 10): correct n-grams 1-4, n-grams 1-4, own and closest reference's length."""
    lengths = corpus.caption_ngrams.lengths
    columns = _correct(corpus)
    columns += [np.maximum(0, lengths - n) for n in range(MAX_N)]
    columns += [lengths, _closest_lengths(corpus)]
    return np.stack(columns, axis=1).astype(float)


def _correct(corpus: Corpus) -> list[np.ndarray]:
    """Per n, how many n-grams of each caption (N,) a reference has, each counted as often as the best one."""
    owners = np.repeat(np.arange(len(corpus.ids)), [len(r) for r in corpus.references])
    here = corpus.reference_ngrams.tree.find(corpus.caption_ngrams.tree)
    correct = []
    levels = zip(corpus.caption_ngrams.levels, corpus.reference_ngrams.levels, here, strict=True)
    for caption, reference, found in levels:
        size = max(1, len(reference.keys))
        keys, most = _maxima(owners[reference.sentences] * size + reference.grams, reference.counts)
        grams = found[caption.grams]
        places = positions(keys, np.where(grams < 0, -1, caption.sentences * size + grams))
        clipped = np.where(places < 0, 0, np.minimum(caption.counts, most[places] if len(most) else 0))
        correct.append(np.bincount(caption.sentences, clipped, len(corpus.ids)))
    return correct


def _maxima(keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct keys, sorted, and the largest value of each."""
    if not len(keys):
        return keys, values
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    return keys[starts], np.maximum.reduceat(values, starts)


def _closest_lengths(corpus: Corpus) -> np.ndarray:
    """The reference length nearest to each caption's, the shorter of two equally near ones."""
    lengths = iter(corpus.reference_ngrams.lengths.tolist())
    closest = []
    for length, references in zip(corpus.caption_ngrams.lengths.tolist(), corpus.references, strict=True):
        closest.append(min((abs(other - length), other) for other in islice(lengths, len(references)))[1])
    return np.array(closest)
