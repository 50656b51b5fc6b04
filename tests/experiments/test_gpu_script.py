"""The script for machines with a GPU: it goes on after a part that fails, keeps to its time, and runs on a CPU."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

SPEED = Path(__file__).parents[2] / "experiments" / "speed"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SPEED))
    return importlib.import_module("gpu")


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, out: Path, *options: str) -> tuple[int, Any]:
    """The exit code and what is in gpu.json."""
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(out), *options])
    with pytest.raises(SystemExit) as end:
        script.main()
    return int(end.value.code), json.loads((out / "gpu.json").read_text())


def test_a_part_that_fails_or_hangs_is_recorded_and_the_next_one_runs(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ends = "import sys; print('no such kernel'); sys.exit(3)"
    writes = "import sys; open(sys.argv[1], 'w').write('[7]'); print('| rate |\\n|---|\\n| 7 |')"
    parts = [
        script.Part("bad", ["-c", ends], 1),
        script.Part("endless", ["-c", "import time; time.sleep(600)"], 1.5 / 60),
        script.Part("good", ["-c", writes, "{out}"], 1),
    ]
    monkeypatch.setattr(script, "parts", lambda options: parts)
    code, found = run(script, monkeypatch, tmp_path, "--tiny")
    assert code == 1
    outcomes = [part["outcome"] for part in found["parts"]]
    assert outcomes == ["failed with exit code 3", "ended after 2 s", "passed"]
    assert found["parts"][2]["result"] == [7] and found["machine"]["torch"] == torch.__version__
    text = (tmp_path / "gpu.md").read_text()
    assert "no such kernel" in text and "| 7 |" in text


def test_nothing_starts_after_the_limit(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(script, "parts", lambda options: [script.Part("one", ["-c", "pass"], 1)])
    code, found = run(script, monkeypatch, tmp_path, "--tiny", "--limit", "0")
    assert code == 1 and found["parts"][0]["outcome"] == "no time left"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_to_do(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="torch finds no CUDA device on this machine: use one .* or --tiny"):
        script.main()


@pytest.mark.slow
def test_all_parts_run_in_tiny_sizes(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, found = run(script, monkeypatch, tmp_path, "--tiny", "--limit", "30")
    assert {part["part"]: part["outcome"] for part in found["parts"]} == {
        name: "passed"
        for name in (
            "tests",
            "training step, fp32",
            "training step, 5 captions, fp32",
            "decoding, fp32",
            "peers",
            "feature cache",
            "loading",
        )
    }
    assert code == 0 and all(part["table"] for part in found["parts"][1:])
