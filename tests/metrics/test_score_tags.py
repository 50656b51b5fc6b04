"""Scores of tags: by hand, against a slow second way, and what resampling means."""

from __future__ import annotations

import numpy as np
import pytest

from easycap.metrics.intervals import resampled, with_intervals
from easycap.metrics.tag_scores import per_tag, tag_scores

TAGS = ["dog", "cat", "bark", "run"]
LIKELY = {
    "a": np.array([0.9, 0.1, 0.8, 0.7]),
    "b": np.array([0.6, 0.7, 0.2, 0.1]),
    "c": np.array([0.8, 0.3, 0.1, 0.0]),
}
TRUTH = {"a": ["dog", "bark"], "b": ["cat", "dog"], "c": []}


def test_by_hand() -> None:
    scores = tag_scores(LIKELY, TRUTH, TAGS, split="test")
    # dog: a, c, b -> (1/1 + 2/3) / 2; cat: b first; bark: a first; run: in no image
    assert scores["mAP"].value == pytest.approx(((1 + 2 / 3) / 2 + 1 + 1) / 3)
    # the three likeliest: a dog bark run, b cat dog bark, c dog cat bark -> 4 of 9 right, 4 of 4 found
    assert scores["precision@3"].value == pytest.approx(4 / 9)
    assert scores["recall@3"].value == pytest.approx(1.0)
    assert scores["F1@3"].value == pytest.approx(8 / 13)
    assert scores["precision@3"].per_image == pytest.approx({"a": 2 / 3, "b": 2 / 3, "c": 0.0})
    assert "tags:4|images:3" in scores["mAP"].signature and "split:test" in scores["mAP"].signature


def test_each_tag_by_hand() -> None:
    rows = {row["tag"]: row for row in per_tag(LIKELY, TRUTH, TAGS)}
    assert rows["dog"] == {
        "tag": "dog",
        "images": 2,
        "average_precision": pytest.approx(5 / 6),
        "precision": pytest.approx(2 / 3),
        "recall": 1.0,
        "F1": pytest.approx(4 / 5),
    }
    assert rows["run"]["average_precision"] is None and rows["run"]["F1"] == 0.0


def test_average_precision_agrees_with_a_slow_way() -> None:
    generator = np.random.default_rng(0)
    likely = {f"{i:02}": generator.random(7) for i in range(40)}
    truth = {i: [str(t) for t in range(7) if generator.random() < 0.3] for i in likely}
    values = []
    for tag in range(7):
        ranked = sorted(likely, key=lambda i: -likely[i][tag])
        found = [str(tag) in truth[i] for i in ranked]
        values.append(np.mean([sum(found[: n + 1]) / (n + 1) for n, right in enumerate(found) if right]))
    score = tag_scores(likely, truth, [str(t) for t in range(7)], split="test")["mAP"]
    assert score.value == pytest.approx(np.mean(values))
    assert score.low < score.value < score.high


def test_a_weight_of_two_is_an_image_twice() -> None:
    twice = LIKELY | {"c2": LIKELY["c"], "a2": LIKELY["a"]}
    doubled = tag_scores(twice, TRUTH | {"c2": [], "a2": TRUTH["a"]}, TAGS, split="t", intervals=False)
    scores = tag_scores(LIKELY, TRUTH, TAGS, split="t", intervals=False)
    for name in ("precision@3", "F1@3"):
        (value,) = scores[name].resample(np.array([[2.0, 1.0, 2.0]]))
        assert value == pytest.approx(doubled[name].value)
    # a once, c not at all: dog is a, b
    assert scores["mAP"].resample(np.array([[1.0, 1.0, 0.0]]))[0] == pytest.approx(1.0)
    assert len(resampled(scores, resamples=7)["mAP"]) == 7


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="'c' is not"):
        tag_scores(LIKELY, {"a": [], "b": []}, TAGS, split="test")
    with pytest.raises(ValueError, match="no image has a tag"):
        tag_scores(LIKELY, {i: [] for i in LIKELY}, TAGS, split="test")


def sparse_tags(seed: int, num_images: int = 120, num_tags: int = 50) -> tuple[dict, dict, list[str]]:
    """Made-up probabilities and tags, most of which few images have."""
    generator = np.random.default_rng(seed)
    tags = [str(t) for t in range(num_tags)]
    shares = np.maximum(0.8 / np.arange(2, num_tags + 2) ** 1.1, 1 / num_images)
    there = generator.random((num_images, num_tags)) < shares
    likely = there + generator.normal(size=there.shape)
    ids = [f"{i:04}" for i in range(num_images)]
    truth = {
        i: [tag for tag, has in zip(tags, row, strict=True) if has] for i, row in zip(ids, there, strict=True)
    }
    return dict(zip(ids, likely, strict=True)), truth, tags


def test_the_interval_of_sparse_tags_is_around_the_value_and_covers_what_other_images_give() -> None:
    samples = [tag_scores(*sparse_tags(seed), split="t", intervals=False) for seed in range(40)]
    typical = np.mean([scores["mAP"].value for scores in samples])
    found = [with_intervals({"mAP": one["mAP"]}, resamples=150)["mAP"] for one in samples]
    for one in found:
        middle = (one.low + one.high) / 2
        assert one.low < one.value < one.high
        assert abs(middle - one.value) < 0.15 * (one.high - one.low)  # without the bias taken off: half of it
    covered = sum(one.low <= typical <= one.high for one in found)
    assert covered >= 33  # 38 of 40 on average if 95 % are covered; 15 to 40 % with the bias


def test_intervals_of_shares_stay_within_0_and_1() -> None:
    likely = {f"{i}": np.array([1.0, 0.0]) for i in range(9)}
    one = tag_scores(likely, {i: ["a"] if i < "8" else ["a", "b"] for i in likely}, ["a", "b"], split="t")[
        "mAP"
    ]
    assert 0 <= one.low <= one.value <= one.high <= 1
