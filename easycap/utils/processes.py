"""Processes among each other: locks that cannot be left behind, children that end with their parent."""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from filelock import FileLock

# Environment variable: a training whose parent (this process id) is gone saves and ends.
PARENT = "EASYCAP_PARENT"
# Besides Ctrl-C, these ask a process to end: a container is stopped, a connection dropped, a job's time is nearly over.
# Windows has only the first.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGQUIT") if hasattr(signal, name)
)
# Windows has no SIGKILL: there SIGTERM cannot be handled either.
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def end_as_on_interrupt() -> None:
    """Let the signals of STOP_SIGNALS end this process as Ctrl-C does, not silently."""
    for number in heeded(STOP_SIGNALS):
        signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    leave_dead_terminal()
    raise KeyboardInterrupt


def leave_dead_terminal() -> None:
    """Discard output to a terminal that is gone: writing would fail while there is still work to save."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


def heeded(numbers: Iterable[signal.Signals]) -> list[signal.Signals]:
    """Return those of the signals that this process was not told to ignore, as `nohup` does with SIGHUP."""
    hangup = getattr(signal, "SIGHUP", None)
    return [one for one in numbers if one != hangup or signal.getsignal(one) is not signal.SIG_IGN]


@contextmanager
def lock(path: Path, *, wait: bool | float = True) -> Iterator[FileLock | None]:
    """Hold the lock file `path` (made if need be) and give the lock, or None if another process holds it and `wait`
    is False, or still holds it after so many seconds.

    The system releases it when its last holder ends, however that ends; a child process that inherits the descriptor
    (see `descriptors`) holds it too.
    """
    from filelock import FileLock, Timeout  # here: scores are computed without it

    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()  # with the umask's mode: a shared cache's lock is taken by several users
    held = FileLock(path, mode=stat.S_IMODE(path.stat().st_mode), thread_local=False)
    try:
        held.acquire(timeout=-1 if wait is True else float(wait))
    except Timeout:
        yield None
        return
    try:
        yield held
    finally:
        held.release()


def descriptors(held: FileLock) -> tuple[int, ...]:
    """Return what a child process must inherit (`pass_fds`) to hold a lock on; nothing where that is not possible."""
    descriptor = getattr(getattr(held, "_context", None), "lock_file_fd", None)
    return () if os.name == "nt" or descriptor is None else (descriptor,)


def end_with_parent(parent: int, number: int = KILL) -> None:
    """Send this process the signal `number` within a second after `parent` is gone, even if that was before this call.

    A process whose parent was killed would otherwise wait for work for ever, or continue unseen.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), number)

    threading.Thread(target=watch, daemon=True).start()


def runs_python(pid: Any) -> bool:
    """Return whether a process of this id runs here, and is a Python program as far as can be known: ids are given out
    again, and another program's process is not the one that was meant.
    """
    if not isinstance(pid, int) or pid <= 0:
        return False
    if os.name == "nt":
        return _runs_on_windows(pid)
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


def _runs_on_windows(pid: int) -> bool:
    # There os.kill(pid, 0) sends Ctrl-C.
    import ctypes

    query_limited_information = 0x1000
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009  typed as missing on other systems
    handle = kernel.OpenProcess(query_limited_information, False, pid)
    if handle:
        kernel.CloseHandle(handle)
    return bool(handle)
