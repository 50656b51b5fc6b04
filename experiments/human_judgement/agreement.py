"""Kendall's tau between the metrics and people's judgements of captions of Flickr8k.

Protocol of CLIPScore (Hessel et al., EMNLP 2021, arXiv 2104.08718, appendix A).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import easycap
from easycap.errors import UserError
from easycap.metrics import DocumentFrequencies

# CLIPScore, tables 1 (tau-c) and 2 (tau-b).
PUBLISHED = {
    "expert": {
        "BLEU-1": 32.3,
        "BLEU-4": 30.8,
        "ROUGE-L": 32.3,
        "METEOR": 41.8,
        "CIDEr-D": 43.9,
        "SPICE": 44.9,
    },
    "crowd": {"BLEU-4": 16.9, "ROUGE-L": 19.9, "METEOR": 22.2, "CIDEr-D": 24.6, "SPICE": 24.4},
}


@dataclass(frozen=True)
class Judged:
    """A caption of an image: the references to score it by, and the ratings that people gave it."""

    caption: str
    references: Sequence[str]
    ratings: Sequence[float]


def expert(folder: Path) -> list[Judged]:
    """Three ratings from 1 to 4 per caption; captions that are references of their image are left out."""
    references, texts = captions_of(folder)
    judged = []
    for image, caption, *ratings in rows_of(folder / "ExpertAnnotations.txt", columns=5):
        if texts[caption] not in references[image]:
            judged.append(Judged(texts[caption], references[image], [float(rating) for rating in ratings]))
    return judged


def crowd(folder: Path) -> list[Judged]:
    """The share of people that said yes; a caption that is a reference is no longer one for its whole image."""
    references, texts = captions_of(folder)
    rows = list(rows_of(folder / "CrowdFlowerAnnotations.txt", columns=5))
    for image, caption, *_ in rows:
        if texts[caption] in references[image]:
            references[image].remove(texts[caption])
    return [
        Judged(texts[caption], references[image], [int(yes) / (int(yes) + int(no))])
        for image, caption, _, yes, no in rows
    ]


def captions_of(folder: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return {image: captions} and {image#number: caption}."""
    texts = dict(rows_of(folder / "Flickr8k.token.txt", columns=2))
    references: dict[str, list[str]] = {}
    for name, text in texts.items():
        references.setdefault(name.partition("#")[0], []).append(text)
    return references, texts


def rows_of(file: Path, *, columns: int) -> Iterator[list[str]]:
    if not file.is_file():
        raise UserError(f"{str(file)!r} is missing; it is part of Flickr8k_text.zip")
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        row = line.split("\t")
        if len(row) != columns:
            raise UserError(f"{str(file)!r}, line {number}: {len(row)} columns instead of {columns}")
        yield row


def measure(judged: Sequence[Judged], metrics: Sequence[str], tau: Callable) -> dict[str, dict]:
    """Return {metric: {"tau": x100, "signature"}}, and {"absent": reason} for a metric that cannot run.

    Every judgement counts as one document of CIDEr-D's document frequencies.
    """
    captions = {str(number): one.caption for number, one in enumerate(judged)}
    references = {str(number): one.references for number, one in enumerate(judged)}
    documents = [one.references for one in judged for _ in one.ratings]
    df = DocumentFrequencies.from_references(documents, source="judgements")
    scores = easycap.score(captions, references, scorers=metrics, df=df, intervals=False)
    ratings = np.array([rating for one in judged for rating in one.ratings])
    found: dict[str, dict] = {}
    for name, score in scores.items():
        values = [score.per_image[str(number)] for number, one in enumerate(judged) for _ in one.ratings]
        found[name] = {"tau": 100 * tau(np.array(values), ratings), "signature": score.signature}
    return found | {name: {"absent": reason} for name, reason in scores.absent.items()}


def tau_b(scores: np.ndarray, ratings: np.ndarray) -> float:
    """Kendall's tau-b: concordant minus discordant pairs, over those not tied in scores and not tied in ratings."""
    pairs = len(ratings) * (len(ratings) - 1) / 2
    return concordance(scores, ratings) / np.sqrt((pairs - ties(scores)) * (pairs - ties(ratings)))


def tau_c(scores: np.ndarray, ratings: np.ndarray) -> float:
    """Stuart's tau-c: the same over n^2 (m - 1) / 2m, with m the smaller number of distinct values."""
    classes = min(len(np.unique(scores)), len(np.unique(ratings)))
    return 2 * concordance(scores, ratings) * classes / (len(ratings) ** 2 * (classes - 1))


def concordance(scores: np.ndarray, ratings: np.ndarray) -> float:
    """Concordant minus discordant pairs; fast for few distinct ratings."""
    groups = [np.sort(scores[ratings == rating]) for rating in np.unique(ratings)]
    total = 0
    for number, low in enumerate(groups):
        for high in groups[number + 1 :]:
            below = np.searchsorted(low, high, side="left").sum()
            total += below - (len(low) * len(high) - np.searchsorted(low, high, side="right").sum())
    return float(total)


def ties(values: np.ndarray) -> float:
    """Pairs of equal values."""
    counts = np.unique(values, return_counts=True)[1].astype(float)
    return float((counts * (counts - 1) / 2).sum())


SETS = {"expert": (expert, tau_c, "tau-c"), "crowd": (crowd, tau_b, "tau-b")}


def main() -> int:
    options = parse()
    results = {}
    for name in options.sets.split(","):
        read, tau, tau_name = SETS[name]
        started = time.perf_counter()
        judged = read(options.folder)
        judgements = sum(len(one.ratings) for one in judged)
        rows = measure(judged, options.metrics.split(","), tau)
        results[name] = {"pairs": len(judged), "judgements": judgements, "tau": tau_name, "metrics": rows}
        seconds = time.perf_counter() - started
        print(f"{name}: {len(judged):,} captions, {judgements:,} judgements, {tau_name}, {seconds:.0f} s")
        for metric, row in rows.items():
            published = PUBLISHED[name].get(metric)
            ours = f"absent: {row['absent']}" if "absent" in row else f"{row['tau']:8.3f}"
            print(f"  {metric:8} {ours}   {'' if published is None else f'published {published}'}".rstrip())
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="Flickr8k's text files")
    parser.add_argument("--sets", default="expert,crowd", help="expert, crowd or both")
    parser.add_argument("--metrics", default="bleu,rouge_l,cider_d,meteor", help="as for easycap score")
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    if unknown := set(options.sets.split(",")) - set(SETS):
        parser.error(f"--sets {options.sets}: no set {sorted(unknown)[0]!r}; expert, crowd or both")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(str(error))
