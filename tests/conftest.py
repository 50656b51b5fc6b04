"""Every test runs on one thread, with its own cache, outputs folder and logging."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from easycap.utils.processes import STOP_SIGNALS

# The first example may wait for imports, and any for other work on the machine.
settings.register_profile("easycap", deadline=None)
settings.load_profile("easycap")


@pytest.fixture(scope="session", autouse=True)
def signals_as_in_a_terminal() -> None:
    # nohup and a shell's background jobs start programs that ignore these, and so would all that the tests start.
    for kind in {signal.SIGINT, *STOP_SIGNALS}:
        if signal.getsignal(kind) == signal.SIG_IGN:
            signal.signal(kind, signal.default_int_handler if kind == signal.SIGINT else signal.SIG_DFL)


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


ROOT_LEVEL = logging.getLogger().level


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """A command that runs in this process, in a test or a fixture of a module, configures the root logger for all that
    follows in it.
    """
    _restore_root_logger()
    yield
    _restore_root_logger()


def _restore_root_logger() -> None:
    root = logging.getLogger()
    root.setLevel(ROOT_LEVEL)
    for handler in root.handlers[:]:
        if not type(handler).__module__.startswith("_pytest."):
            root.removeHandler(handler)
            handler.close()
