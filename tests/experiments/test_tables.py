"""Scores with intervals on the pages of the studies in `STORED_FROM` are stored beside them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
# By study, the heading from which on every figure is stored.
STORED_FROM = dict.fromkeys(
    ("flickr8k_systems", "image_tokens", "drafts", "language_model", "systems"), "# "
) | dict.fromkeys(("self_critical", "tags", "vocab"), "## On photographs")
NUMBER = r"([+-]?\d+\.\d)"
INTERVAL = re.compile(rf"{NUMBER}\*{{0,2}} \({NUMBER} (?:–|to) {NUMBER}\)")


@pytest.mark.parametrize(("study", "heading"), STORED_FROM.items())
def test_every_score_with_an_interval_is_stored(study: str, heading: str) -> None:
    page = (EXPERIMENTS / study / "README.md").read_text(encoding="utf-8")
    found = INTERVAL.findall(page[page.index(heading) :])
    stored = {
        tuple(f"{scale * value:.1f}" for value in figures)
        for figures in stored_in(EXPERIMENTS / study)
        for scale in (1, 100)
    }
    assert len(found) > 10
    assert [figures for figures in found if tuple(text.lstrip("+") for text in figures) not in stored] == []


def stored_in(folder: Path) -> Iterator[tuple[float, float, float]]:
    """Yield value, lower and upper bound of every figure with an interval in the JSON and CSV files of a folder."""
    for file in folder.glob("*.json"):
        yield from _in_json(json.loads(file.read_text(encoding="utf-8")))
    for file in folder.glob("*.csv"):
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                for name in row:
                    if row.get(f"{name} low"):
                        yield float(row[name]), float(row[f"{name} low"]), float(row[f"{name} high"])


def _in_json(content: Any) -> Iterator[tuple[float, float, float]]:
    if isinstance(content, list):
        content = dict(enumerate(content))
    if isinstance(content, dict):
        if content.get("low") is not None:
            yield content["value"], content["low"], content["high"]
        for value in content.values():
            yield from _in_json(value)
