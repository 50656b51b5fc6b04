"""One cell of a sweep: a run in a folder of its own, trained by a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from easycap.processes import PARENT, lock
from easycap.report.reading import read_status
from easycap.tracking.run_folder import RunFolder

LOG = "output.log"
_SECONDS_TO_SAVE = 60.0
_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class Cell:
    """What to train, and where. `overrides` are all it takes to train it; `varied` those that differ in the sweep."""

    folder: Path
    overrides: tuple[str, ...]
    varied: tuple[str, ...]

    @property
    def label(self) -> str:
        return " ".join(self.varied) or self.folder.name


@dataclass(frozen=True)
class Outcome:
    """What became of a cell in this sweep.

    `did` is trained, resumed, skipped (it was completed already) or waited (another sweep trained it); `state` is
    completed, failed or interrupted.
    """

    did: str
    state: str
    error: str | None = None
    seconds: float = 0.0


class Children:
    """The running training processes, so that they can be stopped together."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen] = set()
        self._guard = threading.Lock()
        self.stopped = threading.Event()

    @contextmanager
    def started(self, command: list[str], **options: object) -> Iterator[subprocess.Popen]:
        with self._guard:
            process = subprocess.Popen(command, **options)
            self._running.add(process)
            if self.stopped.is_set():
                process.terminate()
        try:
            yield process
        finally:
            with self._guard:
                self._running.discard(process)

    def stop(self) -> None:
        """Ask all to save and end, start no more, and kill what has not ended after a minute."""
        self.stopped.set()
        with self._guard:
            running = list(self._running)
        for process in running:
            process.terminate()
        deadline = time.monotonic() + _SECONDS_TO_SAVE
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):  # the second Ctrl-C is meant
                process.kill()


def state_of(cell: Cell) -> str:
    """Return new, completed, running (in some process), failed or interrupted."""
    if not (cell.folder / "status.json").is_file():
        return "new"
    status = read_status(cell.folder)
    if status.state == "killed" or (status.state == "failed" and status.error == "interrupted"):
        return "interrupted"
    return status.state


def run_cell(
    cell: Cell, *, threads: int | None = None, wait: bool = True, children: Children
) -> Outcome | None:
    """Train a cell, unless it is completed, and return what became of it; None if another process is at it and
    `wait` is False.

    A cell that was started before goes on from its last checkpoint. Nothing that happens to the training process
    reaches this one.
    """
    with lock(cell.folder.parent / ".locks" / cell.folder.name, wait=False) as held:
        if held is not None:
            return _run_locked(cell, held, threads, children)
    return _wait_for_the_other(cell, threads, children) if wait else None


def _wait_for_the_other(cell: Cell, threads: int | None, children: Children) -> Outcome:
    started = time.monotonic()
    while not children.stopped.wait(_SECONDS_BETWEEN_LOOKS):
        with lock(cell.folder.parent / ".locks" / cell.folder.name, wait=False) as held:
            if held is None:
                continue
            state = state_of(cell)
            if state in ("completed", "failed"):
                return Outcome("waited", state, error_of(cell), time.monotonic() - started)
            return _run_locked(cell, held, threads, children)
    return Outcome("waited", "interrupted")


def _run_locked(cell: Cell, held: int, threads: int | None, children: Children) -> Outcome:
    before = state_of(cell)
    if before == "completed":
        return Outcome("skipped", "completed")
    if before == "running":
        return Outcome("waited", "failed", "it is being trained by another process, outside of any sweep")
    if children.stopped.is_set():
        return Outcome("waited", "interrupted")
    goes_on = (cell.folder / "config.yaml").is_file()
    if not goes_on:  # killed before it had said what it was
        shutil.rmtree(cell.folder, ignore_errors=True)
    did, started = "resumed" if goes_on else "trained", time.monotonic()
    code = _train(cell, goes_on, held, threads, children)
    _record_violent_end(cell, code)
    return Outcome(did, state_of(cell), error_of(cell), time.monotonic() - started)


def _train(cell: Cell, goes_on: bool, held: int, threads: int | None, children: Children) -> int:
    environment = {**environment_of(threads), PARENT: str(os.getpid())}
    cell.folder.mkdir(parents=True, exist_ok=True)
    with (
        (cell.folder / LOG).open("ab") as log,
        children.started(
            command_of(cell, goes_on=goes_on),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=(held,),
            start_new_session=True,  # Ctrl-C reaches the sweep alone, which then stops its cells in order
        ) as process,
    ):
        return process.wait()


def environment_of(threads: int | None) -> dict[str, str]:
    """Return the environment of a process with so many threads; OMP_NUM_THREADS, where it is set, counts instead."""
    return ({} if threads is None else {"OMP_NUM_THREADS": str(threads)}) | os.environ


def command_of(cell: Cell, *, goes_on: bool) -> list[str]:
    """Return the command that trains a cell, from the start or from where it was stopped."""
    device = [word for word in cell.overrides if word.lstrip("+").startswith("device=")]
    goes_on_with = [f"resume='{cell.folder}'", *device]  # all else is the run's own then
    arguments = goes_on_with if goes_on else [*cell.overrides, f"hydra.run.dir='{cell.folder}'"]
    return [sys.executable, "-m", "easycap.train", "--debug", *arguments]


def _record_violent_end(cell: Cell, code: int) -> None:
    """A process that was killed, or died before its first word, could not write how it ended."""
    if state_of(cell) != "new" and read_status(cell.folder).state in ("completed", "failed"):
        return
    if code < 0:
        name = signal.Signals(-code).name
        reason = f"killed by {name}" + (" (out of memory, or by hand)" if name == "SIGKILL" else "")
    else:
        reason = f"ended with exit code {code}: {_last_line(cell.folder / LOG)}"
    RunFolder(cell.folder, command="").write_status("failed", reason)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")


def error_of(cell: Cell) -> str | None:
    """Return why a cell failed, None where it has not."""
    return read_status(cell.folder).error if (cell.folder / "status.json").is_file() else None
