"""Every test runs on one thread, with its own cache, outputs folder and logging."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# The first example may wait for imports, and any for other work on the machine.
settings.register_profile("easycap", deadline=None)
settings.load_profile("easycap")


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
    # A run in this process fixes the number of threads for all that follows in it.
    monkeypatch.setattr("easycap.utils.cpu_threads._decided", False)


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """A command that runs in this process sets the root logger's level and handlers for all that follows in it."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    for handler in root.handlers[:]:
        if handler not in handlers and not type(handler).__module__.startswith("_pytest."):
            root.removeHandler(handler)
            handler.close()
