"""Ranks as forked processes of this one."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(*targets: Callable[[], Any], seconds: float = 300) -> list[int]:
    """Run each target in a process that is its rank; return their exit codes."""
    shared = {"WORLD_SIZE": str(len(targets)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    places = [{"RANK": str(n), "LOCAL_RANK": str(n), **shared} for n in range(len(targets))]
    return with_variables(list(zip(targets, places, strict=True)), seconds=seconds)


def with_variables(
    pairs: Sequence[tuple[Callable[[], Any], Mapping[str, str]]], *, seconds: float = 300
) -> list[int]:
    """Run each target in a process with these environment variables; return their exit codes, 3 after an exception."""

    def start(target: Callable[[], Any], variables: Mapping[str, str]) -> None:
        os.environ.update(variables)
        try:
            target()
        except BaseException as error:
            print(f"rank {variables.get('RANK', variables.get('SLURM_PROCID'))}: {error}")
            os._exit(3)
        os._exit(0)

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=start, args=pair) for pair in pairs]
    for process in processes:
        process.start()
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]
