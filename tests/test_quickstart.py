"""The quickstart with a third of its steps: it learns, evaluates and reports. Minutes, so it is marked slow.

What all of its steps reach is measured by hand, in experiments/speed/README.md.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from easycap.cli import main


@pytest.mark.slow
def test_a_third_of_the_quickstart_learns_to_describe_scenes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYCAP_OUTPUTS", str(tmp_path))
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        assert main(["train", "experiment=easycap/quickstart", "trainer.max_steps=700", "tracking=none"]) == 0
    finally:
        torch.set_num_threads(threads)
    (run,) = (tmp_path / "runs").iterdir()
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    scores, points = result["scores"]["test"], result["baselines"]["test"]
    model, reference = (
        points[name]["CIDEr-D"]["value"] for name in ("model_same_references", "reference_caption")
    )
    assert model >= 0.6 * reference
    assert scores["truth"]["value"] >= 0.15
    assert scores["CIDEr-D"]["value"] > 5 * points["most_frequent"]["CIDEr-D"]["value"]
    assert (run / "report.html").stat().st_size > 100_000
