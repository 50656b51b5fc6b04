"""Processes among each other: locks that cannot be left behind, children that end with their parent."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Environment variable: a training whose parent (this process id) is gone saves and ends.
PARENT = "EASYCAP_PARENT"


@contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[int | None]:
    """Hold the lock file `path` (made if need be) and give its file descriptor, or None if another process holds
    it and `wait` is False.

    The system releases it when its last holder ends, however that ends; a child process that inherits the descriptor
    holds it too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)


def end_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Send this process the signal `number` within a second after `parent` is gone, even if that was before this call.

    A process whose parent was killed would else wait for work for ever, or go on unseen.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), number)

    threading.Thread(target=watch, daemon=True).start()


def runs_python(pid: Any) -> bool:
    """Return whether a process of this id runs here, and is a Python program as far as can be told: ids are given out
    again, and another program's process is not the one that was meant."""
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # no /proc on this system
        return True
    return b"python" in command or b"easycap" in command
