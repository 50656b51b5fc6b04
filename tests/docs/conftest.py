"""A folder to run documentation in."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with an outputs/ of its own, on a disk large enough for COCO; hands are off the user's
    cache and W&B.
    """
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    disk = SimpleNamespace(total=10**12, used=0, free=10**12)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)
    for name, value in {
        "EASYCAP_OUTPUTS": str(tmp_path / "outputs"),
        "WANDB_MODE": "disabled",
        "HYDRA_FULL_ERROR": "1",
        "COLUMNS": "80",
        "OMP_NUM_THREADS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path
