"""Scores of groups of images: taken from the scores of all, equal to scoring each group alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from easycap.metrics import DocumentFrequencies, Scores, score, score_samples
from easycap.metrics.intervals import FromStatistics
from easycap.metrics.meteor import meteor_from_counts
from easycap.metrics.subset import subset_scores
from easycap.metrics.tag_scores import tag_scores
from easycap.types import Score

WORDS = "a the dog cat bus runs sits on in grass street red big small".split()
RNG = np.random.default_rng(0)


def sentence() -> str:
    return " ".join(RNG.choice(WORDS, RNG.integers(3, 8)))


IDS = [f"img{number}" for number in range(30)]
REFERENCES = {i: [sentence() for _ in range(3)] for i in IDS}
CAPTIONS = {i: " ".join(REFERENCES[i][0].split()[:4] + sentence().split()[:3]) for i in IDS}
GROUP = IDS[3:14]
DF = DocumentFrequencies.from_references(REFERENCES.values(), source="refs")


def of_group(values: Mapping[str, Any]) -> dict[str, Any]:
    return {i: values[i] for i in GROUP}


def assert_same(found: Scores, alone: Mapping[str, Score]) -> None:
    assert found.keys() == alone.keys()
    for name, one in found.items():
        for part in ("value", "low", "high"):
            assert getattr(one, part) == pytest.approx(getattr(alone[name], part), abs=1e-12), name
        assert one.per_image == alone[name].per_image


def test_a_group_has_the_scores_that_it_has_alone() -> None:
    found = subset_scores(score(CAPTIONS, REFERENCES), GROUP, split="set/kind=x")
    assert_same(found, score(of_group(CAPTIONS), of_group(REFERENCES), df=DF))
    assert {"BLEU-4", "ROUGE-L", "CIDEr-D"} <= found.keys()


def test_document_frequencies_are_those_of_all_images() -> None:
    found = subset_scores(score(CAPTIONS, REFERENCES), GROUP, split="x")["CIDEr-D"]
    assert "df:refs,N=30" in found.signature
    own = score(of_group(CAPTIONS), of_group(REFERENCES))["CIDEr-D"]
    assert found.value != pytest.approx(own.value, abs=1e-3)


def test_several_captions_of_an_image() -> None:
    samples = {i: [CAPTIONS[i], sentence()] for i in IDS}
    found = subset_scores(score_samples(samples, REFERENCES), GROUP, split="x")
    assert_same(found, score_samples(of_group(samples), of_group(REFERENCES), df=DF))
    assert "self-CIDEr" in found


def test_scores_of_tags() -> None:
    tags = ["dog", "cat", "bus"]
    likely = {i: RNG.random(3) for i in IDS}
    truth = {i: [tag for tag in tags if RNG.random() < 0.4] for i in IDS}
    found = subset_scores(Scores(tag_scores(likely, truth, tags, split="val")), GROUP, split="x")
    assert_same(found, tag_scores(of_group(likely), of_group(truth), tags, split="x"))


def test_meteor_is_made_from_the_counts_of_the_group() -> None:
    counts = RNG.integers(1, 9, (30, 23)).astype(float)
    values = meteor_from_counts(counts)

    def meteor(rows: np.ndarray) -> Score:
        return Score(
            float(meteor_from_counts(counts[rows].sum(axis=0))),
            {IDS[row]: float(values[row]) for row in rows},
            "METEOR",
            resample=FromStatistics(counts[rows], meteor_from_counts),
        )

    found = subset_scores(Scores({"METEOR": meteor(np.arange(30))}), GROUP, split="x")["METEOR"]
    assert found.value == pytest.approx(meteor(np.arange(3, 14)).value)
    assert found.value != pytest.approx(np.mean(list(found.per_image.values())))


def test_the_signature_says_which_images_of_which_set() -> None:
    whole = score(CAPTIONS, REFERENCES, split="set", oracles=("tags:oracle",))
    found, same, others = (
        subset_scores(whole, ids, split="set/kind=x")["CIDEr-D"].signature
        for ids in (GROUP, GROUP[::-1], GROUP[:-1])
    )
    data = next(part for part in whole["CIDEr-D"].signature.split("|") if part.startswith("data:"))
    assert "|images:11/30," in found and f"|{data}|" in found
    assert "|split:set/kind=x|tags:oracle" in found
    assert found == same != others


def test_one_image_has_no_interval() -> None:
    found = subset_scores(score(CAPTIONS, REFERENCES), GROUP[:1], split="x")
    assert all(one.low is None for one in found.values())
