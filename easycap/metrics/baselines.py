"""What a score means: the same metric for a person's caption and for a caption that ignores the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from easycap.errors import UserError
from easycap.metrics.corpus import Captions, References, captions_by_id, references_by_id
from easycap.metrics.document_frequencies import DocumentFrequencies
from easycap.metrics.scoring import DEFAULT_SCORERS, Scores, score
from easycap.metrics.tokenizer import tokenize
from easycap.utils.segmenters import SPACES, Segmenter


def most_frequent_caption(counts: Mapping[str, int]) -> str:
    """Return the most frequent of captions counted by `normalized`, the first of the alphabet among equals.

    Raises `UserError` without any word.
    """
    worded = (text for text in counts if text)
    found = min(worded, key=lambda text: (-counts[text], text), default=None)
    if found is None:
        raise UserError("the training captions contain no words, so none is the most frequent")
    return found


def score_baselines(
    captions: Captions,
    references: References,
    *,
    df: DocumentFrequencies,
    most_frequent: str,
    scorers: Sequence[str] = DEFAULT_SCORERS,
    split: str | None = None,
    oracles: Sequence[str] = (),
    intervals: bool = True,
    segmenter: Segmenter = SPACES,
) -> dict[str, Scores]:
    """Return "reference_caption" (reference 1 of each image against the others), "model_same_references" (the
    captions against those others) and "most_frequent" (one training caption for every image).

    The first two use the training references' `df` and leave out images with one reference, counted as
    "one_reference"; the third uses all references and their own frequencies, as published scores do.
    `oracles` are those of the captions; see `score`.
    """
    found, wanted = captions_by_id(captions), references_by_id(references)
    wanted = {image_id: [t for t in texts if tokenize(t)] for image_id, texts in wanted.items()}
    rest = {image_id: texts[1:] for image_id, texts in wanted.items() if len(texts) > 1}
    chosen: dict[str, Any] = {
        "scorers": scorers,
        "split": split,
        "intervals": intervals,
        "segmenter": segmenter,
    }
    people = {image_id: wanted[image_id][0] for image_id in rest}
    model = {image_id: text for image_id, text in found.items() if image_id in rest or image_id not in wanted}
    skipped = {"one_reference": len(wanted) - len(rest)}
    return {
        "reference_caption": _against_rest(people, rest, df, chosen, skipped),
        "model_same_references": _against_rest(model, rest, df, chosen | {"oracles": oracles}, skipped),
        "most_frequent": score(dict.fromkeys(wanted, most_frequent), wanted, **chosen),
    }


def _against_rest(captions: dict, rest: dict, df: DocumentFrequencies, chosen: dict, skipped: dict) -> Scores:
    if not rest:
        return Scores({}, {"all": "no image has two references"}, skipped)
    scores = score(captions, rest, df=df, **chosen)
    return replace(scores, counts={**scores.counts, **skipped})
