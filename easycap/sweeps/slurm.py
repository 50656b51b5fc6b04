"""Each run of a sweep as a job of a SLURM cluster, submitted by submitit; works with and without SLURM's accounting."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Any

from easycap.errors import UserError
from easycap.registry import register
from easycap.sweeps.job_states import ACTIVE, REQUEUED, SILENT, UNKNOWN, job_states, reason_of_waiting
from easycap.sweeps.planned_run import Children, Outcome, PlannedRun, error_of, state_of, train_planned
from easycap.utils.extras import check_extra

logger = logging.getLogger(__name__)

_JOBS = ".jobs"
_ARRAY_FROM = 21  # runs
_SECONDS_BETWEEN_LOOKS = 5.0
_SECONDS_TO_END = 90.0  # from a job's result or cancellation to its end
_SECONDS_WITHOUT_START = 60.0
# SLURM may warn of the time limit up to a minute early, so before Python has started: that would end the job.
_PYTHON = f"""sh -c 'trap "" USR2; exec "$0" "$@"' {shlex.quote(sys.executable)}"""


@register("launcher", "slurm")
class Slurm:
    """One job per run, named after it; more than 20 runs, or with `at_once` set, become one job array.

    A run gets `tasks` processes (ranks) with `cpus` cores each and `gpus` GPUs in all, on one node. At the time limit
    of `minutes` it saves and is requeued, at most `restarts` times. `cluster` is slurm, or local, which runs the same
    jobs as processes of this machine. `options` are submitit's further parameters, e.g. {slurm_account: vision}. Logs
    are in the sweep's folder. The sweep waits for its jobs; if it is stopped it cancels them.
    """

    def __init__(
        self,
        *,
        cluster: str,
        minutes: int,
        partition: str | None,
        tasks: int,
        gpus: int,
        cpus: int,
        memory_gb: int,
        restarts: int,
        at_once: int | None,
        options: dict[str, Any],
    ) -> None:
        if cluster not in ("slurm", "local"):
            raise UserError(f"launcher.cluster={cluster!r} is not allowed; allowed: local, slurm")
        lowest = {
            "minutes": minutes,
            "tasks": tasks,
            "cpus": cpus,
            "memory_gb": memory_gb,
            "at_once": at_once,
        }
        for name, count in lowest.items():
            if count is not None and count < 1:
                raise UserError(f"launcher.{name}={count} must be at least 1")
        for name, count in (("gpus", gpus), ("restarts", restarts)):
            if count < 0:
                raise UserError(f"launcher.{name}={count} must be at least 0")
        check_extra("slurm", "launcher=slurm")
        import submitit

        self._submitit = submitit
        self.cluster, self.tasks, self.restarts, self.minutes = cluster, tasks, restarts, minutes
        self.memory_gb, self.at_once = memory_gb, at_once
        limits = {"timeout_min": minutes, "cpus_per_task": cpus * tasks, "mem_gb": memory_gb}
        limits |= {"gpus_per_node": gpus} if gpus else {}
        self.parameters = limits | ({"slurm_partition": partition} if partition else {}) | options

    def __call__(
        self, runs: Sequence[PlannedRun], children: Children
    ) -> Iterator[tuple[PlannedRun, Outcome]]:
        """Yield runs as their jobs end. Raises `UserError`, and leaves no job behind, if SLURM refuses one."""
        if not runs:
            return
        jobs = dict(zip(self._submit(runs), runs, strict=True))
        names = "".join(f"{job.job_id}\t{run.folder.name}\n" for job, run in jobs.items())
        with (runs[0].folder.parent / _JOBS / "jobs.tsv").open("a", encoding="utf-8") as table:
            table.write(names)
        try:
            for job in self._ended(list(jobs)):
                yield jobs[job], self._outcome(job, jobs[job])
        except BaseException:
            self._cancel(list(jobs))
            raise

    def _submit(self, runs: Sequence[PlannedRun]) -> list[Any]:
        """Submit all runs or none."""
        sweep = runs[0].folder.parent
        as_array = self.cluster == "slurm" and (self.at_once is not None or len(runs) >= _ARRAY_FROM)
        jobs: list[Any] = []
        try:
            executor = self._executor(sweep / _JOBS)
            if as_array:
                at_once = {} if self.at_once is None else {"slurm_array_parallelism": self.at_once}
                executor.update_parameters(name=sweep.name, **at_once)
                return executor.map_array(_Job(self.tasks), runs)
            for run in runs:
                executor.update_parameters(name=run.folder.name)
                jobs.append(executor.submit(_Job(self.tasks), run))
            return jobs
        except BaseException as error:
            self._cancel(jobs)
            if not isinstance(error, Exception):
                raise
            raise UserError(f"no job was submitted: {_reason(error)}") from None

    def _executor(self, folder: Path) -> Any:
        own = (
            {"slurm_max_num_timeout": self.restarts, "slurm_python": _PYTHON}
            if self.cluster == "slurm"
            else {}
        )
        executor = self._submitit.AutoExecutor(folder=folder, cluster=self.cluster, **own)
        executor.update_parameters(**self.parameters)
        return executor

    def _ended(self, jobs: list[Any]) -> Iterator[Any]:
        """Yield jobs as they end: with a result, or when two looks in a row no longer find them active."""
        looked, over = time.monotonic(), set[str]()
        waiting_since: float | None = looked
        while jobs:
            done = [job for job in jobs if job.paths.result_pickle.exists() and not self._goes_on(job)]
            if time.monotonic() - looked >= _SECONDS_BETWEEN_LOOKS:
                states = self._states(jobs)
                now_over = {
                    job.job_id for job in jobs if states[job.job_id] not in (*ACTIVE, *REQUEUED, SILENT)
                }
                done += [job for job in jobs if job.job_id in now_over & over and job not in done]
                looked, over = time.monotonic(), now_over
                if waiting_since is not None:
                    waiting_since = self._warn_of_waiting(jobs, states, waiting_since)
            yield from done
            jobs = [job for job in jobs if job not in done]
            if jobs and not done:
                time.sleep(1.0)

    def _warn_of_waiting(self, jobs: Sequence[Any], states: dict[str, str], since: float) -> float | None:
        """Say once, after a minute, why no job has started; return `since` until that has been decided."""
        if any(state != "PENDING" for state in states.values()):
            return None
        if time.monotonic() - since < _SECONDS_WITHOUT_START:
            return since
        logger.warning("no job has started yet; SLURM's reason: %s", reason_of_waiting(jobs[0].job_id))
        return None

    def _goes_on(self, job: Any) -> bool:
        """Return True for a job that was stopped with a result but put back in the queue, as by preemption."""
        if self.cluster != "slurm":
            return False
        outcome, _ = _result_of(job)
        if outcome is None or outcome.state != "interrupted":
            return False
        if self._final_state(job) not in REQUEUED:
            return False
        job.paths.result_pickle.unlink(missing_ok=True)
        return True

    def _final_state(self, job: Any) -> str:
        """Return a job's final state, which SLURM may report a moment late."""
        deadline = time.monotonic() + _SECONDS_TO_END
        while (state := self._states([job])[job.job_id]) in ("RUNNING", "COMPLETING", SILENT):
            if time.monotonic() > deadline:
                break
            time.sleep(1.0)
        return state

    def _states(self, jobs: Sequence[Any]) -> dict[str, str]:
        if self.cluster != "slurm":
            return {job.job_id: "RUNNING" if job.state == "RUNNING" else UNKNOWN for job in jobs}
        return job_states([job.job_id for job in jobs])

    def _outcome(self, job: Any, run: PlannedRun) -> Outcome:
        """Return what became of a run whose job has ended."""
        outcome, raised = _result_of(job) if job.paths.result_pickle.exists() else (None, "")
        if outcome is not None and outcome.state != "interrupted":
            return outcome
        state = self._final_state(job)
        if state.startswith("CANCELLED"):
            return Outcome("trained", "cancelled", "its job was cancelled")
        if outcome is not None and state != "TIMEOUT":
            return outcome
        return self._ended_without_result(job, run, state, raised)

    def _ended_without_result(self, job: Any, run: PlannedRun, state: str, raised: str) -> Outcome:
        log = f"see {_JOBS}/{Path(job.paths.stderr).name}"
        if state_of(run) == "completed":
            return Outcome("trained", "completed")
        if "timed-out" in raised or state == "TIMEOUT":
            times = f" {self.restarts + 1} times" if self.restarts and raised else ""
            reason = f"the time limit of launcher.minutes={self.minutes} was reached{times}"
            return Outcome("trained", "interrupted", reason)
        if state == "OUT_OF_MEMORY":
            return Outcome(
                "trained",
                "failed",
                f"out of memory: launcher.memory_gb={self.memory_gb} is too small ({log})",
            )
        reason = raised or error_of(run) or f"its job ended as {state}"
        return Outcome("trained", "failed", f"{reason} ({log})")

    def _cancel(self, jobs: Sequence[Any]) -> None:
        """Cancel jobs and wait until they have saved; one that was just going back to the queue is cancelled again."""
        running = {job: 0 for job in jobs if not job.paths.result_pickle.exists()}
        for job in running:
            job.cancel(check=False)
        deadline = time.monotonic() + _SECONDS_TO_END
        while running and time.monotonic() < deadline:
            states = self._states(list(running))
            for job in running:
                if states[job.job_id] in REQUEUED:
                    job.cancel(check=False)
            running = {
                job: 0 if states[job.job_id] in (*ACTIVE, *REQUEUED, SILENT) else looks + 1
                for job, looks in running.items()
                if looks < 2
            }
            time.sleep(0.5)


class _Job:
    """What a job does on its node. When cancelled or at its time limit, it lets the training save first."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self.children: Children | None = None  # from the start of the training; it cannot be pickled

    def __call__(self, run: PlannedRun) -> Outcome:
        self.children = children = Children()
        signal.signal(signal.SIGTERM, lambda *_: children.ask_to_end())
        # The main thread only waits, so that handlers of signals run in it at once and may wait for the training.
        with ThreadPoolExecutor(1) as pool:
            training = pool.submit(train_planned, run, ranks=self.ranks, children=children)
            while not training.done():
                wait_for([training], timeout=0.5)
        outcome = training.result()
        assert outcome is not None
        return outcome

    def checkpoint(self, run: PlannedRun) -> Any:
        """Called by submitit shortly before the time limit: what to do when the job runs again."""
        from submitit.helpers import DelayedSubmission

        if self.children is not None:
            self.children.stop()
        return DelayedSubmission(_Job(self.ranks), run)


def _reason(error: Exception) -> str:
    """Return what sbatch or submitit says of a refused job, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = [line.partition(":")[2].partition(":")[2].strip() for line in lines if line.startswith("sbatch: ")]
    return "; ".join(said) or lines[0]


def _result_of(job: Any) -> tuple[Outcome | None, str]:
    """Return what a job that has left a result returned, and "", or None and the last line of what it raised."""
    from submitit.core.utils import pickle_load

    kind, value = pickle_load(job.paths.result_pickle)
    return (value, "") if kind == "success" else (None, str(value).strip().splitlines()[-1])
