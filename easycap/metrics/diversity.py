"""How different several captions of one image are: Div-1, Div-2 and self-CIDEr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from easycap.errors import UserError
from easycap.metrics.corpus import tokenizer_name
from easycap.metrics.document_frequencies import DocumentFrequencies
from easycap.metrics.ngrams import MAX_N, count_ngrams
from easycap.metrics.tokenizer import tokenize
from easycap.types import Score
from easycap.utils.segmenters import SPACES, Segmenter

VERSION = 1


def diversity(
    captions: Mapping[str, Sequence[str]], *, df: DocumentFrequencies, segmenter: Segmenter = SPACES
) -> dict[str, Score]:
    """Return Div-1, Div-2 (Shetty et al., ICCV 2017) and self-CIDEr (Wang and Chan, CVPR 2019), 0..1.

    `captions` holds at least two captions per image, else `UserError` names it; `df` weighs self-CIDEr's n-grams.
    """
    per_image: dict[str, dict[str, float]] = {"Div-1": {}, "Div-2": {}, "self-CIDEr": {}}
    for image_id in sorted(captions):
        tokens = [tokenize(segmenter(text)) for text in captions[image_id]]
        if len(tokens) < 2:
            raise UserError(f"image {image_id!r} has {len(tokens)} captions; diversity needs at least two")
        per_image["Div-1"][image_id] = _distinct_share(tokens, 1)
        per_image["Div-2"][image_id] = _distinct_share(tokens, 2)
        per_image["self-CIDEr"][image_id] = _self_cider(tokens, df)
    counts = {len(texts) for texts in captions.values()}
    fewest, most = min(counts), max(counts)
    number = fewest if fewest == most else f"{fewest}-{most}"
    tokenizer = tokenizer_name(segmenter, (text for texts in captions.values() for text in texts))
    text = f"v:{VERSION}|tok:{tokenizer}|captions:{number}|images:{len(captions)}"
    suffix = {"self-CIDEr": f"|df:{df.signature}"}
    return {
        name: Score(float(np.mean(list(values.values()))), values, f"{name}|{text}{suffix.get(name, '')}")
        for name, values in per_image.items()
    }


def _distinct_share(tokens: Sequence[Sequence[str]], n: int) -> float:
    """Distinct n-grams of an image's captions per word in them."""
    grams = {tuple(words[i : i + n]) for words in tokens for i in range(len(words) - n + 1)}
    return len(grams) / max(1, sum(map(len, tokens)))


def _self_cider(tokens: Sequence[Sequence[str]], df: DocumentFrequencies) -> float:
    """1 if the captions' vectors point in as many directions as there are captions, 0 if all in one."""
    spread = np.sqrt(np.clip(np.linalg.eigvalsh(_similarities(tokens, df)), 0, None))
    if spread.sum() <= 0:
        return 0.0
    return float(-np.log(spread.max() / spread.sum()) / np.log(len(tokens)))


def _similarities(tokens: Sequence[Sequence[str]], df: DocumentFrequencies) -> np.ndarray:
    """CIDEr (M, M) of M captions with each other: the mean cosine of their weighted n-grams, n = 1..4."""
    counts = count_ngrams(tokens)
    total = np.zeros((len(tokens), len(tokens)))
    for level, idf in zip(counts.levels, df.idf(counts.tree), strict=True):
        vectors = np.zeros((len(tokens), len(level.keys)))
        vectors[level.sentences, level.grams] = level.counts * idf[level.grams]
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
        total += vectors @ vectors.T
    return total / MAX_N
