"""The similarity of image tokens that experiments/language_model shows."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers.own_packages import searched

from easycap.types import Features

STUDY = Path(__file__).parents[2] / "experiments" / "language_model"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDY))
    return importlib.import_module("token_similarity")


def test_the_mean_is_over_pairs_of_different_vectors(script: ModuleType) -> None:
    a, b = [1.0, 0.0], [0.6, 0.8]
    assert script.mean_of_pairs(torch.tensor([[a, a, b]])) == pytest.approx((1 + 0.6 + 0.6) / 3)
    assert script.mean_of_pairs(torch.tensor([[a, a], [a, b]])) == pytest.approx((1 + 0.6) / 2)


def test_tokens_of_an_untrained_resampler_are_nearly_the_same(script: ModuleType) -> None:
    small = ["data=scenes", "data.size=32", "data.train_images=24", "data.val_images=8", "data.test_images=1"]
    small += ["encoder=small", "encoder.image_size=32", "encoder.widths=[8,16]", "vocab.min_count=1"]
    split, resampler = (script.similarities(way, small) for way in ("split", "resampler"))
    assert abs(split[0]) < 0.2 and resampler[0] > 0.8


def test_the_resampler_of_the_study_starts_with_other_tokens(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = Features(torch.randn(4, 12, 6), torch.ones(4, 12, dtype=torch.bool), (3, 4))
    within = []
    with searched(STUDY.parent / "image_tokens" / "apart", monkeypatch):
        apart = importlib.import_module("apart_resampler").apart_resampler
        for gain, position_gain in ((1.0, 1.0), (3.0, 15.0)):
            torch.manual_seed(0)
            gains = {"gain": gain, "position_gain": position_gain}
            of = apart(6, 32, (3, 4), count=5, **gains)
            within.append(script.mean_of_pairs(torch.nn.functional.normalize(of(features)[0], dim=-1)))
    assert within[0] > 0.8 and within[1] < within[0] - 0.2
