"""Scripts that measure still start: what they call changes without them."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

SPEED = Path(__file__).parents[2] / "experiments" / "speed"


def test_a_small_coco_is_generated_read_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SPEED))
    script = importlib.import_module("full_size_coco")
    monkeypatch.setattr(script, "VAL_IMAGES", 2)
    out = tmp_path / "found.json"
    asked = ["--images", "64", "--workers", "0", "--epochs", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["full_size_coco.py", *asked])
    script.main()
    found = json.loads(out.read_text())
    assert found["images"] == 64 and found["epoch 1, images/s"] > 0
