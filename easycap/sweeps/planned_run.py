"""One run of a sweep: a folder of its own, trained by a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from easycap.config.overrides import quoted
from easycap.runs.reading import read_status
from easycap.runs.run_folder import RunFolder
from easycap.utils.console import say
from easycap.utils.processes import PARENT, STOP_SIGNALS, descriptors, lock

LOG = "output.log"
_SECONDS_TO_SAVE = 60.0
_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class PlannedRun:
    """What to train, and where. `overrides` are all it takes to train it; `varied` those that differ in the sweep."""

    folder: Path
    overrides: tuple[str, ...]
    varied: tuple[str, ...]

    @property
    def label(self) -> str:
        """Return what differs in the sweep, or the name of the folder."""
        return " ".join(self.varied) or self.folder.name


@dataclass(frozen=True)
class Outcome:
    """What became of a run in this sweep.

    `did` is trained, resumed, skipped (it was completed already) or waited (another sweep trained it); `state` is
    completed, failed, interrupted or, on a cluster, cancelled.
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
    def started(self, command: list[str], **options: Any) -> Iterator[subprocess.Popen]:
        """Start a process, which `stop` ends while the context is open."""
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

    def ask_to_end(self) -> list[subprocess.Popen]:
        """Ask all to save and end, start no more, and return those asked."""
        self.stopped.set()
        with self._guard:
            running = list(self._running)
        for process in running:
            process.terminate()
        return running

    def stop(self) -> None:
        """Ask all to save and end, start no more, and kill what has not ended after a minute."""
        running = self.ask_to_end()
        deadline = time.monotonic() + _SECONDS_TO_SAVE
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):  # the second Ctrl-C is meant
                process.kill()


# Signals by which people and schedulers stop a process; others mean that it failed.
_ASKED_TO_STOP = {signal.SIGINT, *STOP_SIGNALS}


def state_of(run: PlannedRun) -> str:
    """Return new, completed, running (in some process), failed or interrupted."""
    if not (run.folder / "status.json").is_file():
        return "new"
    status = read_status(run.folder)
    return "interrupted" if status.state == "killed" else status.state


def train_planned(
    run: PlannedRun, *, threads: int | None = None, ranks: int = 1, wait: bool = True, children: Children
) -> Outcome | None:
    """Train a run, unless it is completed, and return what became of it; None if another process is training it and
    `wait` is False. `ranks` processes of this machine train it together.

    A run that was started before is resumed from its last checkpoint. Nothing that happens to the training process
    affects this one.
    """
    outcome = _try_to_train(run, threads, ranks, children)
    if outcome is not None or not wait:
        return outcome
    return _wait_for_other_process(run, threads, ranks, children)


def _try_to_train(run: PlannedRun, threads: int | None, ranks: int, children: Children) -> Outcome | None:
    """Train a run, unless it is completed; None if another process is training it."""
    with lock(run.folder.parent / ".locks" / run.folder.name, wait=False) as held:
        return None if held is None else _run_locked(run, held, threads, ranks, children)


def _wait_for_other_process(run: PlannedRun, threads: int | None, ranks: int, children: Children) -> Outcome:
    started = time.monotonic()
    if state_of(run) == "running" and _is_elsewhere(run):
        say(f"waiting for {run.label}, trained on {read_status(run.folder).host}", stderr=True)
    while not children.stopped.wait(_SECONDS_BETWEEN_LOOKS):
        with lock(run.folder.parent / ".locks" / run.folder.name, wait=False) as held:
            if held is None:
                continue
            state = state_of(run)
            if state in ("completed", "failed"):
                return Outcome("waited", state, error_of(run), time.monotonic() - started)
            outcome = _run_locked(run, held, threads, ranks, children)
            if outcome is not None:
                return outcome
    return Outcome("waited", "interrupted")


def _run_locked(
    run: PlannedRun, held: FileLock, threads: int | None, ranks: int, children: Children
) -> Outcome | None:
    """Train a run, unless it is completed; None if it is trained on another host, as far as that can be seen."""
    before = state_of(run)
    if before == "completed":
        return Outcome("skipped", "completed")
    if before == "running":
        return None if _is_elsewhere(run) else _TRAINED_OUTSIDE
    if children.stopped.is_set():
        return Outcome("waited", "interrupted")
    resuming = (run.folder / "config.yaml").is_file()
    if not resuming:  # killed before it wrote its config
        shutil.rmtree(run.folder, ignore_errors=True)
    did, started = "resumed" if resuming else "trained", time.monotonic()
    # Of several ranks the parent is torchrun, which ends them itself.
    environment = environment_of(threads) | ({PARENT: str(os.getpid())} if ranks == 1 else {})
    code = _train(run, command_of(run, resuming=resuming, ranks=ranks), held, environment, children)
    if state_of(run) == "running":  # another process was faster
        return None if _is_elsewhere(run) else _TRAINED_OUTSIDE
    _record_crash(run, code)
    return Outcome(did, state_of(run), error_of(run), time.monotonic() - started)


_TRAINED_OUTSIDE = Outcome("waited", "failed", "another process, outside any sweep, is training it")


def _is_elsewhere(run: PlannedRun) -> bool:
    return read_status(run.folder).host not in (None, socket.gethostname())


def _train(
    run: PlannedRun, command: list[str], held: FileLock, environment: dict[str, str], children: Children
) -> int:
    run.folder.mkdir(parents=True, exist_ok=True)
    with (
        (run.folder / LOG).open("ab") as log,
        children.started(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=descriptors(held),
            start_new_session=True,  # Ctrl-C reaches the sweep alone, which then stops its runs in order
        ) as process,
    ):
        return process.wait()


def environment_of(threads: int | None) -> dict[str, str]:
    """Return the environment of a process with so many threads; OMP_NUM_THREADS, if set, takes precedence."""
    return ({} if threads is None else {"OMP_NUM_THREADS": str(threads)}) | os.environ


def command_of(run: PlannedRun, *, resuming: bool, ranks: int = 1) -> list[str]:
    """Return the command that trains a run, from the start or from where it was stopped."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    device = [word for word in run.overrides if word.lstrip("+").startswith("device=")]
    resume = [f"resume={quoted(str(run.folder))}", *device]  # everything else comes from the run's config
    arguments = resume if resuming else [*run.overrides, f"hydra.run.dir={quoted(str(run.folder))}"]
    return [sys.executable, *launch, "-m", "easycap", "train", "--debug", *arguments]


def _record_crash(run: PlannedRun, code: int) -> None:
    """Record how a process ended that was killed, or died before it could write that itself."""
    if state_of(run) != "new" and read_status(run.folder).state in ("completed", "failed", "interrupted"):
        return
    if code < 0:
        name = signal.Signals(-code).name
        reason = f"killed by {name}" + (" (out of memory, or by hand)" if name == "SIGKILL" else "")
        status = "interrupted" if -code in _ASKED_TO_STOP else "failed"
    else:
        status, reason = "failed", f"ended with exit code {code}: {_last_line(run.folder / LOG)}"
    RunFolder(run.folder, command="").write_status(status, reason)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")


def error_of(run: PlannedRun) -> str | None:
    """Return why a run failed, None where it has not."""
    return read_status(run.folder).error if (run.folder / "status.json").is_file() else None
