from __future__ import annotations

import json
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from easycap.report.charts import MAX_POINTS, Level, Series, line_chart, nice_ticks
from easycap.report.curve_panels import curves


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 100, (0, 25, 50, 75, 100)), (0.12, 0.31, (0.15, 0.2, 0.25, 0.3)), (-1, 1, (-1, -0.5, 0, 0.5, 1))],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: tuple[float, ...]) -> None:
    assert nice_ticks(low, high) == pytest.approx(expected)


def test_a_long_curve_is_thinned_and_its_band_keeps_the_extremes() -> None:
    y = np.ones(10_000)
    y[5000], y[5001] = 9.0, -3.0
    chart = line_chart([Series("loss", range(10_000), y)], title="Loss")
    points = json.loads(chart.data)[0]
    assert len(points["px"]) == MAX_POINTS
    assert (points["step"][0], points["step"][-1]) == (0, 9999)
    # The band must reach nearly from the top of the plot (10) to its bottom (182).
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", _path(chart.svg, "band"))]
    assert min(heights) < 25 and max(heights) > 165


def test_values_that_are_not_finite_leave_a_gap_and_a_warning() -> None:
    chart = line_chart([Series("loss", [1, 2, 3, 4], [4.0, math.nan, 2.0, 1.0])], title="Loss")
    assert _path(chart.svg, "line").count("M") == 2
    assert chart.legend[0].text == "1"
    assert chart.legend[0].warning == "not finite at step 2"
    nothing = line_chart([Series("loss", [1, 2], [math.nan, math.inf])], title="Loss")
    assert nothing.legend[0].text == "no value"
    assert "nan" not in nothing.svg + nothing.data


@pytest.mark.parametrize(
    ("values", "may_be_log", "log"),
    [
        ([1, 10, 1000], True, True),
        ([1, 10, 1000], False, False),
        ([1, 2, 3], True, False),
        ([0, 9, 999], True, False),
    ],
)
def test_only_positive_values_of_many_sizes_get_a_logarithm(
    values: list[float], may_be_log: bool, log: bool
) -> None:
    assert line_chart([Series("norm", [1, 2, 3], values)], title="n", may_be_log=may_be_log).log is log


@pytest.mark.parametrize("values", [[3.0], [0.0, 0.0], [1e-30, 1e-30], [-5.0, -5.0], [1e20, 1.0], []])
def test_odd_curves_still_make_a_picture(values: list[float]) -> None:
    chart = line_chart([Series("x", range(len(values)), values)], title="x", levels=[Level("level", 2.0)])
    assert "nan" not in chart.svg and "inf" not in chart.svg.replace("info", "")
    ElementTree.fromstring(str(chart.svg))


@pytest.mark.parametrize(
    ("values", "from_zero"), [([95, 100], True), ([5, 100], True), ([60, 100], False), ([-100, -95], False)]
)
def test_an_axis_begins_at_zero_where_values_differ_little(values: list[float], from_zero: bool) -> None:
    svg = line_chart([Series("images per second", [1, 2], values)], title="speed").svg
    assert ('class="y">0<' in svg) == from_zero


def test_names_are_escaped_in_the_picture() -> None:
    chart = line_chart([Series("<b>&", [1], [1.0])], title='"<i>', levels=[Level("<u>", 2.0)])
    ElementTree.fromstring(str(chart.svg))
    assert "<b>" not in chart.svg and "<u>" not in chart.svg


def test_baselines_are_drawn_only_from_the_validation_split() -> None:
    lines = [{"step": step, "val/CIDEr-D": 0.1 * step} for step in range(1, 5)]
    point = {"reference_caption": {"CIDEr-D": {"value": 0.9}}}
    (chart,), _ = curves(lines, {"baselines": {"val": point}})
    assert [(entry.name, entry.text) for entry in chart.legend] == [
        ("CIDEr-D", "40.0"),
        ("reference caption on val", "90.0"),
    ]
    (chart,), _ = curves(lines, {"baselines": {"test": point}})
    assert len(chart.legend) == 1


def test_a_tag_models_precision_has_a_chart_in_front() -> None:
    lines = [{"step": step, "val/mAP": 0.1 * step, "val/F1@3": 0.1, "val/F1@5": 0.1} for step in range(1, 4)]
    charts, others = curves(lines, None)
    assert [chart.title for chart in charts] == [
        "mAP on validation images",
        "Other scores on validation images",
    ]
    assert [chart.title for chart in others] == ["val/F1@5"]


def test_everything_that_was_logged_is_drawn_once() -> None:
    keys = (
        "val/loss",
        "train/loss",
        "val/BLEU-1",
        "train/lr",
        "train/grad_norm",
        "train/grad_norm/encoder",
        "val/CIDEr-D",
    )
    keys += (
        "val/truth",
        "val/claims_per_caption",
        "val/distinct_captions",
        "train/lr/encoder",
        "train/tokens",
        "val/loss_of_shuffled_images",
    )
    lines = [{"step": step, "epoch": 1.0, "seconds": 1.0} | dict.fromkeys(keys, 0.5) for step in (1, 2)]
    charts, others = curves(lines, None)
    assert [len(chart.legend) for chart in charts] == [3, 1, 1, 1, 2, 2]
    assert [entry.name for entry in charts[0].legend] == [
        "train/loss",
        "val/loss",
        "val/loss of shuffled images",
    ]
    asides = ["BLEU of shorter n-grams on validation images", "val/claims_per_caption", "train/tokens"]
    assert [chart.title for chart in others] == asides


def _path(svg: str, kind: str) -> str:
    found = re.search(rf'<path class="{kind} [^"]*" d="([^"]*)"', svg)
    assert found
    return found.group(1)
