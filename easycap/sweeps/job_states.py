"""States of SLURM jobs by squeue, and by sacct where the cluster keeps accounts."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

ACTIVE = (
    "PENDING",
    "CONFIGURING",
    "RUNNING",
    "COMPLETING",
    "STAGE_OUT",
    "SUSPENDED",
    "RESIZING",
    "SIGNALING",
)
REQUEUED = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
UNKNOWN = "UNKNOWN"  # SLURM has forgotten the job
SILENT = "SILENT"  # SLURM does not answer


def job_states(ids: Sequence[str]) -> dict[str, str]:
    """Return the state of each job by SLURM's name of it; UNKNOWN if neither squeue nor accounting knows it;
    SILENT if the controller does not answer.
    """
    shown = _ask(
        ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T", f"--jobs={','.join(ids)}"]
    )
    if shown is None:
        return dict.fromkeys(ids, SILENT)
    states = {key: value for key, value in shown.items() if key in ids}
    if len(states) < len(ids):  # ended some minutes ago
        missing = [job for job in ids if job not in states]
        command = ["sacct", "--noheader", "--allocations", "--parsable2", "--format=JobID,State"]
        kept = _ask([*command, f"--jobs={','.join(missing)}"]) or {}
        states |= {key: value for key, value in kept.items() if key in missing}
    return {job: states.get(job, UNKNOWN) for job in ids}


def reason_of_waiting(job: str) -> str:
    """Return why a job is not started, in SLURM's word for it, e.g. Resources."""
    shown = _ask(["squeue", "--noheader", "--format=%i|%r", f"--jobs={job}"]) or {}
    return ", ".join(sorted(set(shown.values()))) or UNKNOWN


def _ask(command: list[str]) -> dict[str, str] | None:
    """Return {job: state} as a command of SLURM prints them, without jobs it does not know; None if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode and "Invalid job id" not in done.stderr:
        return None
    rows = (line.strip().partition("|") for line in done.stdout.splitlines() if "|" in line)
    return {job: state for job, _, state in rows}
