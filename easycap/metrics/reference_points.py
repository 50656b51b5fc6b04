"""What a score means: the same metric for a person's caption and for a caption that ignores the image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from easycap.metrics.corpus import Captions, References, captions_by_id, references_by_id
from easycap.metrics.document_frequencies import DocumentFrequencies
from easycap.metrics.scoring import DEFAULT_SCORERS, Scores, score
from easycap.metrics.tokenizer import tokenize


def most_frequent_caption(references: Iterable[Sequence[str]]) -> str:
    """Return the most frequent caption, tokenised and joined, of all images' references; the first of the
    alphabet among equals. Raises `ValueError` without any word."""
    counts = Counter(" ".join(tokenize(text)) for texts in references for text in texts)
    counts.pop("", None)
    if not counts:
        raise ValueError("the training captions have no word in them, so none is the most frequent")
    return min(counts, key=lambda text: (-counts[text], text))


def reference_points(
    captions: Captions,
    references: References,
    *,
    df: DocumentFrequencies,
    most_frequent: str,
    scorers: Sequence[str] = DEFAULT_SCORERS,
    split: str | None = None,
    oracles: Sequence[str] = (),
    intervals: bool = True,
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
    chosen = {"scorers": scorers, "split": split, "intervals": intervals}
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
