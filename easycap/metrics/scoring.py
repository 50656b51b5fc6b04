"""Scoring captions with any registered scorers: what evaluation, the command line and users call."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from easycap.errors import UserError
from easycap.metrics.corpus import Captions, Corpus, References, normal_id, prepare
from easycap.metrics.document_frequencies import DocumentFrequencies
from easycap.metrics.intervals import with_intervals
from easycap.metrics.java import Absent
from easycap.registry import describe_choices, load_plugins, lookup, registered
from easycap.types import Score, Scorer
from easycap.utils.plugins import failures
from easycap.utils.progress_bar import tracked
from easycap.utils.segmenters import SPACES, Segmenter

DEFAULT_SCORERS = ("bleu", "rouge_l", "cider_d")


def text_metrics() -> tuple[str, ...]:
    """Return the metrics that a user may ask for by name: those that need captions and references alone, of
    `easycap.metrics` and of users' modules that are loaded.
    """
    named = sorted(name for name, scorer in registered("scorer").items() if hasattr(scorer, "score_corpus"))
    return (*DEFAULT_SCORERS, *(name for name in named if name not in DEFAULT_SCORERS))


def metrics_of(scorers: Iterable[str]) -> set[str] | None:
    """Return the printed names of what registered scorers measure; None if one of them does not state its `names`."""
    found: set[str] = set()
    for name in scorers:
        names = getattr(lookup("scorer", name), "names", None)
        if names is None:
            return None
        found.update(names)
    return found


def training_metrics() -> set[str] | None:
    """Return the printed names of what any source of data may be validated with, as `metrics_of` does."""
    of_data = [name for name in registered("scorer") if name not in text_metrics()]
    return metrics_of([*DEFAULT_SCORERS, *of_data])


def metric_names(text: str) -> tuple[str, ...]:
    """Return the metrics of "bleu,meteor"; raises `UserError` naming one that does not exist, and for none."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names or ("",):
        if name not in text_metrics():
            load_plugins()
        if name not in text_metrics():
            raise UserError(
                f"metrics {text!r}: no metric {name!r}; {describe_choices(name, text_metrics())}{failures()}"
            )
    return names


@dataclass(frozen=True)
class Scores(Mapping[str, Score]):
    """Scores by printed name; `absent` says why one is not there, `counts` what was odd (empty captions)."""

    scores: Mapping[str, Score]
    absent: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Score:
        return self.scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return {name: {"value", "low", "high", "signature"}} for result.json, plain numbers and strings."""
        return {name: _plain(score) for name, score in self.scores.items()}

    def per_image(self) -> dict[str, dict[str, float]]:
        """Return {image id: {name: value}}."""
        rows: dict[str, dict[str, float]] = {}
        for name, score in self.scores.items():
            for image_id, value in score.per_image.items():
                rows.setdefault(image_id, {})[name] = value
        return rows


def _plain(score: Score) -> dict[str, Any]:
    interval = {} if score.low is None else {"low": score.low, "high": score.high}
    return {"value": score.value, **interval, "signature": score.signature}


def score(
    captions: Captions | Sequence[str],
    references: References | Sequence[Sequence[str]],
    *,
    annotations: Mapping[Any, Any] | None = None,
    scorers: Sequence[str | Scorer] = DEFAULT_SCORERS,
    df: DocumentFrequencies | None = None,
    split: str | None = None,
    oracles: Sequence[str] = (),
    intervals: bool = True,
    partial: bool = False,
    segmenter: Segmenter = SPACES,
) -> Scores:
    """Score {id: caption} (or rows of a COCO results file) against {id: [reference, ...]}, or two lists in one order.

    `scorers` are registered names or scorers; `df` goes to those that take document frequencies; `split` is
    only named in the signatures, and so are `oracles`, what the captioner was shown of the references (draft:oracle).
    `segmenter` cuts captions and references into words. Raises `UserError` for input that does not fit together
    (see `prepare`).
    """
    corpus = prepare(captions, references, partial=partial, segmenter=segmenter)
    notes = {normal_id(image_id): note for image_id, note in (annotations or {}).items()}
    scores: dict[str, Score] = {}
    absent: dict[str, str] = {}
    built = [_build(s, df) if isinstance(s, str) else s for s in scorers]
    for scorer in tracked(built, "scoring", len(built), unit="metrics", with_speed=False):
        try:
            scores |= _run(scorer, corpus, notes)
        except Absent as reason:
            absent |= dict.fromkeys(_names(scorer), str(reason))
    scores = {name: marked(_partial(one, corpus), split, oracles) for name, one in scores.items()}
    counts = {"images": len(corpus.ids), "missing": corpus.missing, "empty_captions": corpus.num_empty}
    return Scores(with_intervals(scores) if intervals else scores, absent, counts)


def _build(name: str, df: DocumentFrequencies | None) -> Scorer:
    component = lookup("scorer", name)
    if not isinstance(component, type):
        return component
    takes_df = "df" in inspect.signature(component).parameters
    return component(df=df) if takes_df else component()


def _run(scorer: Scorer, corpus: Corpus, annotations: Mapping[str, Any]) -> dict[str, Score]:
    # Scorers of text share one tokenised corpus; others get plain text and what they know of the source.
    if hasattr(scorer, "score_corpus"):
        return scorer.score_corpus(corpus)
    captions = dict(zip(corpus.ids, corpus.texts, strict=True))
    references = dict(zip(corpus.ids, corpus.reference_texts, strict=True))
    return scorer(captions, references, {i: annotations[i] for i in corpus.ids if i in annotations} or None)


def _names(scorer: Scorer) -> Sequence[str]:
    return getattr(scorer, "names", (getattr(scorer, "__name__", type(scorer).__name__),))


def _partial(score: Score, corpus: Corpus) -> Score:
    """Mark what a scorer of plain text does not know: that images were left out."""
    if not corpus.missing or "|partial:" in score.signature:
        return score
    share = f"{len(corpus.ids)}/{len(corpus.ids) + corpus.missing}"
    return replace(score, signature=f"{score.signature}|partial:{share}")


def marked(score: Score, split: str | None, oracles: Sequence[str] = ()) -> Score:
    """Return the score with the split's name and the oracles in its signature."""
    parts = ([] if split is None else [f"split:{split}"]) + list(oracles)
    return replace(score, signature="|".join([score.signature, *parts]))
