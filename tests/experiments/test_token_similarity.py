"""The similarity of image tokens that experiments/language_model shows."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

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
