"""Every test runs on one thread, with its own cache and outputs folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import easycap.build  # noqa: F401  fills the registry before tests are parametrised over it


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    # Two threads a process on a machine that runs several test processes wait for each other most of the time.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def scenes_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder shared by the tests of one process: scenes are drawn once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scenes_cache: Path) -> None:
    monkeypatch.setenv("EASYCAP_CACHE", str(scenes_cache))
    monkeypatch.setenv("EASYCAP_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("WANDB_MODE", "offline")
