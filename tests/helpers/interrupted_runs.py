"""Short runs that are killed and resumed, and everything that must not depend on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.whole_runs import run_or_resume

import easycap.training.checkpoint_files as checkpoint

# Two epochs of three steps of two batches; dropout, so that random numbers matter.
SHORT = [
    "trainer.epochs=2", "trainer.accumulate=2", "trainer.checkpoint_every_steps=2", "data.val_images=4",
    "data.test_images=4", "trainer.captions_per_image=1", "decoder.dropout=0.1",
]  # fmt: skip


class Killed(BaseException):
    """Stands in for SIGKILL: nothing but train()'s own status is written after it."""


def run(path: Path, *overrides: str) -> Path:
    return run_or_resume(path, *overrides, new=SHORT)


def left_behind(path: Path) -> dict[str, Any]:
    """Everything that must not depend on kills: bits of the weights, what was measured, captions, progress."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds"), line.pop("train/images_per_second", None)
    kept = {
        file: hashlib.sha256((path / "checkpoints" / file).read_bytes()).hexdigest()
        for file in ("last/model.safetensors", "last/training.safetensors", "best/model.safetensors")
    }
    progress = checkpoint.read_progress(path / "checkpoints" / "best")
    kept |= {"best": (progress["step"], progress["best"]), "metrics": lines}
    kept["folders"] = sorted(folder.name for folder in (path / "checkpoints").iterdir())
    return kept | {"captions": (path / "captions.test.json").read_text()}


def killed(path: Path, owner: Any, name: str, number: int, *overrides: str) -> Path:
    """A run that dies at the `number`-th call of a function."""
    original: Callable = getattr(owner, name)
    calls = iter(range(1, 1000))

    def dying(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            raise Killed
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owner, name, dying)
        run(path, *overrides)
    return path
