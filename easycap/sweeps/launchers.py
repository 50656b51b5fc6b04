"""Where the runs of a sweep are trained: on this machine, some at a time, or as jobs of a SLURM cluster."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

from easycap.errors import UserError
from easycap.registry import register
from easycap.sweeps.planned_run import Children, Outcome, PlannedRun, train_planned
from easycap.utils.extras import check_extra
from easycap.utils.machine import usable_cores


@register("launcher", "local")
class Local:
    """`jobs` runs at a time on this machine.

    Each gets `threads` threads for its arithmetic; null divides the cores among the jobs, as more threads than cores
    wait for each other most of the time. OMP_NUM_THREADS, where it is set, counts instead. Several GPUs are not
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
        """Yield runs as they end. Those that another sweep is at come last, when it is done with them."""
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


@register("launcher", "slurm")
class Slurm:
    """One job of a SLURM cluster per run, through submitit; its logs go to the sweep's folder.

    `cluster` is slurm, or local, which runs the same jobs as processes of this machine. `options` are submitit's
    further parameters, e.g. {slurm_account: vision}. The sweep waits for its jobs; if it is stopped it cancels them.
    """

    def __init__(
        self,
        *,
        cluster: str,
        minutes: int,
        partition: str | None,
        gpus: int,
        cpus: int,
        memory_gb: int,
        options: dict[str, str],
    ) -> None:
        if cluster not in ("slurm", "local"):
            raise UserError(f"launcher.cluster={cluster!r} is not allowed; allowed: local, slurm")
        for name, count in (("minutes", minutes), ("cpus", cpus), ("memory_gb", memory_gb)):
            if count < 1:
                raise UserError(f"launcher.{name}={count} must be at least 1")
        self.cluster, self.partition, self.options = cluster, partition, options
        self.limits = {
            "timeout_min": minutes,
            "cpus_per_task": cpus,
            "mem_gb": memory_gb,
            "gpus_per_node": gpus,
        }
        check_extra("slurm", "launcher=slurm")
        import submitit

        self._submitit = submitit

    def __call__(
        self, runs: Sequence[PlannedRun], children: Children
    ) -> Iterator[tuple[PlannedRun, Outcome]]:
        """Yield runs as their jobs end."""
        if not runs:
            return
        executor = self._submitit.AutoExecutor(folder=runs[0].folder.parent / ".jobs", cluster=self.cluster)
        executor.update_parameters(name="easycap", **self.limits, **self.options)
        if self.partition is not None:
            executor.update_parameters(slurm_partition=self.partition)
        jobs = {executor.submit(_job, run): run for run in runs}
        try:
            for job in self._submitit.helpers.as_completed(list(jobs)):
                yield jobs[job], _outcome_of(job)
        except BaseException:
            for job in jobs:
                job.cancel()
            raise


def _job(run: PlannedRun) -> Outcome:
    """What a job does on its node; a node's time limit or cancelling lets the training save first."""
    children = Children()

    def stop(*_: object) -> None:
        children.stop()

    for number in {signal.SIGTERM, getattr(signal, "SIGUSR2", signal.SIGTERM)}:  # Windows has no SIGUSR2
        signal.signal(number, stop)
    outcome = train_planned(run, children=children)
    assert outcome is not None
    return outcome


def _outcome_of(job: Any) -> Outcome:
    try:
        return job.result()
    except Exception as error:  # the job itself was killed, or could not be started
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        return Outcome("trained", "failed", f"{reason[0]} (see {Path(job.paths.stderr).name} in .jobs)")
