"""Intervals and paired tests: right coverage, right p values, and no dependence on any order."""

import random
import time

import numpy as np
import pytest

from easycap.metrics import compare, score
from easycap.metrics.intervals import FromStatistics, resampled, weight_blocks, with_intervals
from easycap.types import Score


def _system(quality: float, seed: int, num_images: int = 200) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Captions of which a share `quality` repeats a reference."""
    rng, other = random.Random(0), random.Random(seed)
    words = "a man dog cat runs sits on in the red big park ball with two".split()
    references = {f"{i:03}": [" ".join(rng.choices(words, k=8)) for _ in range(3)] for i in range(num_images)}
    captions = {
        i: texts[0] if other.random() < quality else " ".join(other.choices(words, k=8))
        for i, texts in references.items()
    }
    return captions, references


def test_weights_are_drawn_once_whatever_the_block(monkeypatch) -> None:
    whole = np.concatenate(list(weight_blocks(50, resamples=20)))
    monkeypatch.setattr("easycap.metrics.intervals._BLOCK", 150)
    assert (np.concatenate(list(weight_blocks(50, resamples=20))) == whole).all()
    assert (whole.sum(axis=1) == 50).all()


def test_the_interval_of_a_mean_is_the_textbook_one() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.2, 2000)
    score_of = Score(float(values.mean()), {f"{i:04}": v for i, v in enumerate(values.tolist())}, "x")
    one = with_intervals({"x": score_of})["x"]
    half = 1.96 * values.std() / np.sqrt(2000)
    assert one.high - one.value == pytest.approx(half, rel=0.1)
    assert one.value - one.low == pytest.approx(half, rel=0.1)


def test_bleu_is_resampled_from_counts_not_from_its_image_values() -> None:
    found = score(*_system(0.3, seed=1))["BLEU-4"]
    weights = next(weight_blocks(200, resamples=1))
    ids = [i for i, times in zip(found.per_image, weights[0], strict=True) for _ in range(int(times))]
    captions, references = _system(0.3, seed=1)
    drawn = {f"{n}-{i}": i for n, i in enumerate(ids)}
    again = score({k: captions[i] for k, i in drawn.items()}, {k: references[i] for k, i in drawn.items()})
    assert resampled({"x": found}, resamples=1)["x"][0] == pytest.approx(again["BLEU-4"].value, abs=1e-12)


def test_a_scorer_with_another_order_of_images_has_the_same_interval() -> None:
    found = score(*_system(0.5, seed=2))["ROUGE-L"]
    backwards = Score(found.value, dict(reversed(found.per_image.items())), "x")
    one = with_intervals({"x": backwards})["x"]
    assert (one.low, one.high) == (found.low, found.high)


def test_so_has_one_made_of_statistics() -> None:
    found = score(*_system(0.5, seed=2))["BLEU-4"]
    turned = FromStatistics(found.resample.statistics[::-1], found.resample.formula)
    backwards = Score(found.value, dict(reversed(found.per_image.items())), "x", resample=turned)
    one = with_intervals({"x": backwards})["x"]
    assert (one.low, one.high) == pytest.approx((found.low, found.high), abs=1e-12)


def test_five_thousand_images_take_less_than_five_seconds() -> None:
    scores = score(*_system(0.3, seed=3, num_images=5000), intervals=False)
    start = time.perf_counter()
    with_intervals(scores, resamples=1000)
    # 0.5 s on a free core; the rest is for busy ones.
    assert time.perf_counter() - start < 5


class TestCompare:
    def test_a_clear_difference(self) -> None:
        better, worse = score(*_system(0.6, seed=4)), score(*_system(0.2, seed=5))
        found = compare(better, worse)
        for name in ("BLEU-4", "ROUGE-L", "CIDEr-D"):
            one = found[name]
            assert one.p_value < 0.01 and 0 < one.low < one.difference < one.high, name
            assert one.comparable and not one.mismatch
        assert (
            found["BLEU-4"].method == "approximate randomisation" and found["ROUGE-L"].method == "sign flip"
        )

    def test_no_difference(self) -> None:
        same = compare(score(*_system(0.4, seed=6)), score(*_system(0.4, seed=6)))
        assert all(one.difference == 0 and one.p_value == 1 for one in same.values())

    def test_equal_systems_rarely_look_different(self) -> None:
        pairs = [(score(*_system(0.4, seed=s)), score(*_system(0.4, seed=s + 50))) for s in range(10, 30)]
        small = [compare(a, b, resamples=10, trials=200)["BLEU-4"].p_value < 0.05 for a, b in pairs]
        assert sum(small) <= 4

    def test_signs_are_flipped_as_often_as_they_should_be(self) -> None:
        """All 2**6 sign patterns of equal differences: only all plus and all minus are as extreme."""
        a = {"x": Score(1.0, {str(i): 1.0 for i in range(6)}, "x")}
        b = {"x": Score(0.0, {str(i): 0.0 for i in range(6)}, "x")}
        assert compare(a, b, trials=20_000)["x"].p_value == pytest.approx(2 / 64, abs=0.005)

    def test_images_that_differ_most_come_first(self) -> None:
        captions, references = _system(1.0, seed=7)
        worse = {**captions, "007": "nothing alike whatsoever"}
        found = compare(score(captions, references), score(worse, references))["ROUGE-L"]
        assert found.images[0][0] == "007" and found.images[0][2] == 0

    def test_different_signatures_are_marked(self) -> None:
        captions, references = _system(0.5, seed=8)
        found = compare(score(captions, references, split="a"), score(captions, references, split="b"))
        assert not found["BLEU-1"].comparable and found["BLEU-1"].mismatch == ("split: a / b",)

    def test_different_images_are_refused(self) -> None:
        captions, references = _system(0.5, seed=9)
        fewer = {i: references[i] for i in list(references)[1:]}
        other = score({i: captions[i] for i in fewer}, fewer)
        with pytest.raises(ValueError, match="different images .*'000'"):
            compare(score(captions, references), other)

    def test_plain_data(self) -> None:
        found = compare(score(*_system(0.5, seed=1)), score(*_system(0.4, seed=2)))["CIDEr-D"].to_dict()
        assert {"a", "b", "difference", "low", "high", "p_value", "images"} <= found.keys()
