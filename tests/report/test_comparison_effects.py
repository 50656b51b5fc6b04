"""The front of quality against cost, and main effects, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from easycap.report.comparison.effects import Point, main_effects, pareto, student_t


def point(value: float, seed: int = 1, images: np.ndarray | None = None, **settings: object) -> Point:
    return Point({key: str(of) for key, of in settings.items()}, str(seed), value, images)


# name x count, the value of resampler 5 lifted by an interaction of 0.2.
FOUR = [
    point(0.4, name="split", count=1),
    point(0.6, name="split", count=5),
    point(0.5, name="resampler", count=1),
    point(0.9, name="resampler", count=5),
]


def test_the_front_is_what_no_run_beats() -> None:
    #        cheap good  dear best  dear poor  cheap poor  equal to the first
    points = [(1, 0.5), (3, 0.9), (3, 0.8), (1, 0.4), (1, 0.5), (2, 0.5), (4, 0.9)]
    assert pareto(points) == [0, 4, 1]
    assert pareto([]) == [] and pareto([(2, 0.1)]) == [0]


def test_means_are_over_the_other_settings() -> None:
    by_key = {effect.key: effect for effect in main_effects(FOUR, ["name", "count"])}
    assert set(by_key) == {"name", "count"}
    name = {level.value: level for level in by_key["name"].levels}
    # resampler (0.5 + 0.9) / 2, split (0.4 + 0.6) / 2, their mean 0.6
    assert name["resampler"].mean == pytest.approx(0.7) and name["split"].mean == pytest.approx(0.5)
    assert name["resampler"].effect == pytest.approx(0.1) and name["split"].effect == pytest.approx(-0.1)
    count = {level.value: level for level in by_key["count"].levels}
    assert count["1"].mean == pytest.approx(0.45) and count["5"].mean == pytest.approx(0.75)
    assert by_key["count"].num_contexts == 2 and count["5"].num_runs == 2
    assert count["5"].low is None and "no interval" in by_key["count"].interval


def test_values_are_ordered_by_size() -> None:
    points = [point(0.1, count=count) for count in (10, 2, 1)]
    (effect,) = main_effects(points, ["count"])
    assert [level.value for level in effect.levels] == ["1", "2", "10"]


def test_intervals_over_seeds_pool_the_variance_within_cells() -> None:
    points = [
        point(0.40, 1, count=1),
        point(0.44, 2, count=1),
        point(0.60, 1, count=5),
        point(0.70, 2, count=5),
    ]
    (effect,) = main_effects(points, ["count"])
    # Sums of squares 2 * 0.02^2 and 2 * 0.05^2 over 2 degrees of freedom; an effect of two values is half their
    # difference, whose variance is (pooled / 2 + pooled / 2) / 4.
    pooled = (2 * 0.02**2 + 2 * 0.05**2) / 2
    half = 4.303 * math.sqrt(pooled / 4)
    five = effect.levels[1]
    assert five.mean == pytest.approx(0.65) and five.effect == pytest.approx(0.115)
    assert five.low == pytest.approx(0.115 - half) and five.high == pytest.approx(0.115 + half)
    assert effect.interval == "95 % interval over seeds (2 degrees of freedom)"


def test_intervals_shrink_with_the_combinations() -> None:
    points = [
        point(value + 0.04 * seed, seed, count=count, lr=lr)
        for (count, lr), value in {(1, 1): 0.4, (1, 2): 0.5, (5, 1): 0.6, (5, 2): 0.7}.items()
        for seed in (0, 1)
    ]
    effect = next(effect for effect in main_effects(points, ["count", "lr"]) if effect.key == "count")
    # Every cell has variance 0.04^2 / 2; a mean of two cells of two seeds has a quarter of it, half the difference
    # of two such means an eighth.
    half = 2.776 * math.sqrt(0.04**2 / 2 / 8)
    five = effect.levels[1]
    assert five.effect == pytest.approx(0.1) and five.high - five.effect == pytest.approx(half)
    assert "4 degrees of freedom" in effect.interval and effect.num_contexts == 2


def test_a_run_made_twice_with_one_seed_is_no_second_seed() -> None:
    points = [point(0.4, 1, count=1), point(0.5, 1, count=1), point(0.6, 1, count=5)]
    (effect,) = main_effects(points, ["count"])
    assert effect.levels[0].mean == pytest.approx(0.45) and effect.levels[0].low is None
    assert effect.interval.startswith("one seed")


def test_with_one_seed_the_interval_is_over_images_and_says_so() -> None:
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0, 1, 400), rng.normal(0, 0.1, 400)
    images = {"1": shared, "5": shared + 0.3 + own}
    points = [point(float(of.mean()), images=of, count=count) for count, of in images.items()]
    (effect,) = main_effects(points, ["count"])
    level = effect.levels[1]
    half = 1.96 * np.std((images["5"] - images["1"]) / 2) / math.sqrt(400)
    # Paired: what images have in common, ten times their difference, widens nothing.
    assert level.high - level.low == pytest.approx(2 * half, rel=0.15)
    assert level.low < level.effect < level.high and level.low > 0
    assert effect.interval.startswith("one seed: 95 % interval over test images")


def test_only_settings_varied_alone_have_an_effect() -> None:
    points = [point(0.4, lr=1, width=10), point(0.6, lr=2, width=20)]
    assert main_effects(points, ["lr", "width"]) == []


def test_what_changes_with_a_choice_is_named_with_it() -> None:
    points = [
        Point({"encoder": "small", "encoder.size": "64"}, "1", 0.4),
        Point({"encoder": "resnet18", "encoder.size": "224"}, "1", 0.6),
        Point({"encoder": "resnet101", "encoder.size": "224"}, "1", 0.7),
    ]
    (effect,) = main_effects(points, ["encoder", "encoder.size"])
    assert effect.key == "encoder" and effect.also == ("encoder.size",) and len(effect.levels) == 3


def test_a_setting_of_one_choice_alone_does_not_part_the_choices() -> None:
    points = [
        Point({"image_tokens": "split"}, "1", 0.4),
        Point({"image_tokens": "resampler", "image_tokens.heads": "2"}, "1", 0.6),
        Point({"image_tokens": "resampler", "image_tokens.heads": "4"}, "1", 0.8),
    ]
    by_key = {effect.key: effect for effect in main_effects(points, ["image_tokens", "image_tokens.heads"])}
    assert {level.value: level.mean for level in by_key["image_tokens"].levels} == {
        "split": pytest.approx(0.4),
        "resampler": pytest.approx(0.7),
    }
    assert [level.mean for level in by_key["image_tokens.heads"].levels] == [0.6, 0.8]


def test_missing_cells_never_mix_unequal_company() -> None:
    """grid was not run at 5: it is compared at 1 alone, the others at both."""
    points = [*FOUR, point(0.3, name="grid", count=1)]
    both, three = (effect for effect in main_effects(points, ["name", "count"]) if effect.key == "name")
    assert {level.value: level.mean for level in both.levels} == pytest.approx(
        {"split": 0.5, "resampler": 0.7}
    )
    assert {level.value: level.mean for level in three.levels} == pytest.approx(
        {"split": 0.4, "resampler": 0.5, "grid": 0.3}
    )
    assert (both.num_contexts, three.num_contexts) == (2, 1)


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (30, 2.042), (31, 2.0395), (120, 1.980)])
def test_student_t(freedom: int, quantile: float) -> None:
    assert student_t(freedom) == pytest.approx(quantile, abs=1e-3)
