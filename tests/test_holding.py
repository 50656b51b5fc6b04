"""A run is trained by one process at a time, on this host and on others."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import easycap.runs.holding as holding
from easycap.runs.holding import SILENT_SECONDS, hold_run, silent_seconds
from easycap.runs.reading import read_status

ELSEWHERE = "node17"


def a_run(folder: Path, **status: Any) -> Path:
    folder.mkdir()
    (folder / "status.json").write_text(json.dumps({"status": "interrupted", **status}))
    return folder


def running_elsewhere(folder: Path, *, silent: float) -> Path:
    """A run of another host, which last wrote so many seconds ago."""
    run = a_run(folder, status="running", host=ELSEWHERE, pid=1)
    (run / ".seconds").touch()
    for name, ago in ((".seconds", silent), ("status.json", silent + 3600)):
        os.utime(run / name, (time.time() - ago,) * 2)
    return run


def test_the_second_process_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(holding, "_SECONDS_TO_WAIT", 0.2)
    run = a_run(tmp_path / "run", status="running", host=socket.gethostname(), pid=os.getpid())
    expected = (
        rf"is being trained by another process \({os.getpid()} on {socket.gethostname()}\): stop it first"
    )
    with hold_run(run), pytest.raises(ValueError, match=expected), hold_run(run):
        pytest.fail("two at once")
    with hold_run(run):
        pass


@contextmanager
def beating(run: Path) -> Iterator[None]:
    """Another host writes that it trains the run."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.2):
            (run / ".seconds").touch()

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def refused(run: Path) -> None:
    expected = "is being trained on node17: stop it there first"
    with beating(run), pytest.raises(ValueError, match=expected), hold_run(run):
        pytest.fail("two at once")


def test_a_live_run_of_another_host_is_refused(tmp_path: Path) -> None:
    run = running_elsewhere(tmp_path / "run", silent=20)
    assert read_status(run).state == "running"
    refused(run)


@pytest.mark.parametrize("silent", [SILENT_SECONDS + 20, SILENT_SECONDS - 1])
def test_a_dead_run_of_another_host_is_taken_up_when_it_was_silent_for_long(
    tmp_path: Path, caplog, silent: float
) -> None:
    dead = running_elsewhere(tmp_path / "dead", silent=silent)
    with hold_run(dead):
        assert silent_seconds(dead) >= SILENT_SECONDS
        assert "node17 was training this run but has sent no heartbeat for 3 min" in caplog.text
        assert read_status(dead).state == "killed"
    assert ("whether it still is" in caplog.text) == (silent < SILENT_SECONDS)


def test_without_a_clock_in_common_the_disk_decides(tmp_path: Path, monkeypatch) -> None:
    run = running_elsewhere(tmp_path / "run", silent=20)
    monkeypatch.setattr(holding.time, "time", lambda: 1e10)  # this host's clock is far ahead
    refused(run)


@pytest.mark.parametrize("error", [NotImplementedError("no flock"), OSError(37, "No locks available")])
def test_where_nothing_can_be_locked_the_signs_of_life_decide(tmp_path: Path, monkeypatch, error) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("filelock.FileLock.acquire", fails)
    with hold_run(a_run(tmp_path / "own")):
        pass
    refused(running_elsewhere(tmp_path / "alive", silent=20))


def test_the_latest_sign_of_life_counts(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    assert silent_seconds(run) < 60
    os.utime(run / "status.json", (0, 0))
    assert silent_seconds(run) > 1e6
    (run / ".seconds").touch()
    assert silent_seconds(run) < 60
