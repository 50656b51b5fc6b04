"""What `make quickstart` promises, by running it: minutes, so it is marked slow."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from easycap.cli import main


@pytest.mark.slow
def test_the_quickstart_reaches_a_persons_score_and_tells_the_truth(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("EASYCAP_OUTPUTS", str(tmp_path))
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        assert main(["train", "experiment=easycap/quickstart", "tracking=none"]) == 0
    finally:
        torch.set_num_threads(threads)
    (run,) = (tmp_path / "runs").iterdir()
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    points = result["reference_points"]["test"]
    model, person = (
        points[name]["CIDEr-D"]["value"] for name in ("model_same_references", "reference_caption")
    )
    assert model >= 0.95 * person
    assert result["scores"]["test"]["truth"]["value"] >= 0.7
    assert result["scores"]["test"]["CIDEr-D"]["value"] > 5 * points["most_frequent"]["CIDEr-D"]["value"]
    assert (run / "report.html").stat().st_size > 100_000
