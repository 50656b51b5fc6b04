"""Who trains a run: a lock on its folder for as long as it is trained, and a heartbeat for other hosts.

File locks work between processes of one host; on a disk shared by several hosts it depends on the disk.
There a running run's `.seconds`, which it writes every few seconds, decides.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from easycap.errors import UserError
from easycap.utils.processes import lock, runs_python
from easycap.utils.text import duration_text

logger = logging.getLogger(__name__)

LOCK, SECONDS, STATUS = ".lock", ".seconds", "status.json"
# Disks shared by hosts may show a file's changes a minute late.
SILENT_SECONDS = 180.0
# The loader processes of a killed training run end, and release its lock, within seconds.
_SECONDS_TO_WAIT = 30.0
_SECONDS_BETWEEN_LOOKS = 0.5


def is_alive(status: Mapping[str, Any]) -> bool:
    """Return True if another process, recorded as running in status.json, still is, as far as this host knows."""
    return status.get("status") == "running" and _is_here(status) and not _has_ended(status)


def is_dead(run: Path, status: Mapping[str, Any]) -> bool:
    """Return True if the process that status.json calls running has ended, or has been silent for long elsewhere."""
    if status.get("host") in (None, socket.gethostname()):
        return not runs_python(status.get("pid"))
    return silent_seconds(run) > SILENT_SECONDS


def silent_seconds(run: Path, now: float | None = None) -> float:
    """Return how long ago the process that trains a run last wrote that it does; `now` is by the clock of its disk."""
    return (time.time() if now is None else now) - _last_sign(run)


def _last_sign(run: Path) -> float:
    written = [0.0]
    for name in (SECONDS, STATUS):
        with suppress(OSError):
            written.append((run / name).stat().st_mtime)
    return max(written)


@contextmanager
def hold_run(run: Path) -> Iterator[None]:
    """Keep other processes from training the run in the folder `run`; `UserError` if one does already.

    A process of another host that has just fallen silent is given time for another heartbeat.
    """
    with ExitStack() as stack:
        try:
            held = stack.enter_context(lock(run / LOCK, wait=_SECONDS_TO_WAIT))
        except (NotImplementedError, OSError) as error:
            logger.debug("%s cannot be locked (%s): only heartbeats decide", run, error)
        else:
            if held is None:
                raise UserError(f"{run} is being trained by another process{_named(run)}: stop it first")
        _refuse_if_trained_elsewhere(run)
        yield


def _refuse_if_trained_elsewhere(run: Path) -> None:
    status = _status(run)
    if status.get("status") != "running" or _is_here(status):
        return
    host, sign = status.get("host"), _last_sign(run)
    silent = silent_seconds(run, now=(run / LOCK).stat().st_mtime if (run / LOCK).exists() else None)
    if silent <= SILENT_SECONDS:
        logger.warning(
            "%s was being trained on %s %s ago: waiting to see whether it still is",
            run,
            host,
            duration_text(max(0.0, silent)),
        )
    deadline = time.monotonic() + SILENT_SECONDS - silent
    while time.monotonic() < deadline:
        if _last_sign(run) != sign:
            raise UserError(f"{run} is being trained on {host}: stop it there first")
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    logger.warning(
        "%s was training this run but has sent no heartbeat for %s", host, duration_text(SILENT_SECONDS)
    )


def _named(run: Path) -> str:
    status = _status(run)
    return f" ({status['pid']} on {status.get('host')})" if status.get("status") == "running" else ""


def _is_here(status: Mapping[str, Any]) -> bool:
    return status.get("host") == socket.gethostname()


def _has_ended(status: Mapping[str, Any]) -> bool:
    return status.get("pid") == os.getpid() or not runs_python(status.get("pid"))


def _status(run: Path) -> dict[str, Any]:
    try:
        found = json.loads((run / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
