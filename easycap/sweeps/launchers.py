"""The runs of a sweep as processes of this machine, some at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any

from easycap.errors import UserError
from easycap.registry import register
from easycap.sweeps.planned_run import Children, Outcome, PlannedRun, train_planned
from easycap.utils.machine import usable_cores


@register("launcher", "local")
class Local:
    """`jobs` runs at a time on this machine.

    Each gets `threads` threads for its arithmetic; null divides the cores among the jobs, as more threads than cores
    wait for each other most of the time. OMP_NUM_THREADS, if set, takes precedence. Several GPUs are not
    divided: all runs use the one that `device` names.
    """

    def __init__(self, *, jobs: int, threads: int | None) -> None:
        for name, count in (("jobs", jobs), ("threads", threads)):
            if count is not None and count < 1:
                raise UserError(f"launcher.{name}={count} must be at least 1")
        self.jobs = jobs
        self.threads = threads or (max(1, usable_cores() // jobs) if jobs > 1 else None)

    def __call__(
        self, runs: Sequence[PlannedRun], children: Children
    ) -> Iterator[tuple[PlannedRun, Outcome]]:
        """Yield runs as they end. Runs that another sweep is training come last, once they have ended there."""
        train_one = partial(train_planned, threads=self.threads, children=children)
        with ThreadPoolExecutor(self.jobs) as pool:
            busy = []
            for run, outcome in _ended(pool, partial(train_one, wait=False), runs, children):
                if outcome is None:
                    busy.append(run)
                else:
                    yield run, outcome
            yield from _ended(pool, train_one, busy, children)


def _ended(
    pool: ThreadPoolExecutor, train_one: Any, runs: Sequence[PlannedRun], children: Children
) -> Iterator[tuple[PlannedRun, Any]]:
    futures: dict[Future, PlannedRun] = {pool.submit(train_one, run): run for run in runs}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BaseException:
        for future in futures:
            future.cancel()
        children.stop()
        raise
