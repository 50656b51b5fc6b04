"""Several ranks train one run in one folder: check that all of them see it before training starts."""

from __future__ import annotations

import os
import secrets
import socket
import time
from pathlib import Path

from easycap.errors import UserError
from easycap.training.distributed import Ranks

_SECONDS_TO_APPEAR = 30.0  # for a file that another host has written


def check_shared_disk(ranks: Ranks, run: Path) -> None:
    """Raise `UserError` on every rank, naming those that do not see what the main rank writes into the folder `run`."""
    if ranks.world_size == 1:
        return
    probe = run / f".seen-by-all.{os.getpid()}"
    token: str | None = None
    if ranks.is_main:
        token = secrets.token_hex(8)
        probe.write_text(token, encoding="utf-8")
    probe, token = ranks.broadcast((probe, token))
    try:
        seen = ranks.all_gather((socket.gethostname(), _appears(probe, token)))
    finally:
        if ranks.is_main:
            probe.unlink(missing_ok=True)
    blind = [f"rank {rank} on {host}" for rank, (host, is_seen) in enumerate(seen) if not is_seen]
    if blind:
        raise UserError(
            f"{', '.join(blind)} cannot see {run}, which rank 0 on {seen[0][0]} created: all ranks need a shared "
            "disk; set EASYCAP_OUTPUTS to a folder on it"
        )


def _appears(probe: Path, token: str | None) -> bool:
    deadline = time.monotonic() + _SECONDS_TO_APPEAR
    while True:
        try:
            if probe.read_text(encoding="utf-8") == token:
                return True
        except OSError:
            pass
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.2)
