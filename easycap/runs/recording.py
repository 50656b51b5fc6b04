"""How a run ends: recorded in its folder and its tracker, whatever happens."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from easycap.errors import OutOfTime, UserError
from easycap.runs.run_folder import RunFolder
from easycap.runs.trackers import FileTracker
from easycap.types import Tracker


class NoRunFolder(RunFolder):
    """The run's folder for a process that must not write to it."""

    is_new = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def seconds(self) -> float:
        return 0.0

    def write_config(self, yaml: str) -> None: ...
    def write_status(self, status: str, error: str | None = None) -> None: ...
    def restore_status(self, content: bytes | None) -> None: ...
    def append_metrics(self, values: Mapping[str, float], *, step: int) -> None: ...
    def write_samples(self, name: str, rows: Any, *, images: str = "") -> None: ...
    def update_result(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {}


def open_run(path: Path, *, command: str, resume: bool, writes: bool) -> RunFolder:
    """Return the folder of a run to train in; one that ignores all writes unless this process `writes`.

    Raises `UserError` if there is a run already and it is not to `resume`.
    """
    if not writes:
        return NoRunFolder(path)
    if (path / "status.json").exists() and not resume:
        raise UserError(f"{path} already holds a run; resume it with resume={path}, or choose another folder")
    return RunFolder(path, command=command)


class Recording:
    """While entered, a run's status is running; how it ends, status.json and the `tracker` say.

    A new run that fails before its first step leaves nothing behind, and a completed one whose
    resuming is refused stays completed; `steps` returns how many steps it has taken.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.tracker: Tracker = FileTracker(run)
        self.steps: Callable[[], int] = lambda: 0
        self._before: bytes | None = None

    def __enter__(self) -> Recording:
        self._before = self.run.completed_status()
        self.run.write_status("running")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.tracker.finish(self.run.update_result({}), status="completed")
            return
        if isinstance(error, KeyboardInterrupt):
            self.tracker.finish(None, status="interrupted")
        else:
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            status = "interrupted" if isinstance(error, OutOfTime) else "failed"
            self.tracker.finish(None, status=status, error=reason)
        if isinstance(error, UserError) and not self.steps():
            self.run.restore_status(self._before)
        if self.run.is_new and not self.steps():
            _remove(self.run.path)


def _remove(run: Path) -> None:
    """Remove a run's folder, and the log handlers that write into it."""
    for handler in logging.getLogger().handlers[:]:
        if isinstance(handler, logging.FileHandler) and run.absolute() in Path(handler.baseFilename).parents:
            logging.getLogger().removeHandler(handler)
            handler.close()
    shutil.rmtree(run, ignore_errors=True)
