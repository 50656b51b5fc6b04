"""How the ranks of one job find each other, and never connect to those of another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta

import torch.distributed as dist

from easycap.errors import UserError
from easycap.training.place import Place

_TIME_TO_MEET = timedelta(minutes=5)
_DEFAULT_PORT = 29500  # torch's
# Below the ports that systems give to outgoing connections.
_FIRST_PORT, _PORTS = 15_000, 17_000
_STEPS_PER_JOB = 7
_ATTEMPT = "TORCHELASTIC_RESTART_COUNT"


def default_port(environment: Mapping[str, str]) -> int:
    """Return the port on which rank 0 listens if MASTER_PORT is not set: each step of each SLURM job has its own."""
    job, step = environment.get("SLURM_JOB_ID", ""), environment.get("SLURM_STEP_ID", "0")
    if not (job.isdigit() and step.isdigit()):
        return _DEFAULT_PORT
    return _FIRST_PORT + (int(job) * _STEPS_PER_JOB + int(step)) % _PORTS


def job_token(environment: Mapping[str, str]) -> str:
    """Return a text that all ranks of a job share and, as far as possible, no other job has."""
    names: tuple[str, ...]
    if "TORCHELASTIC_RUN_ID" in environment:
        names = ("TORCHELASTIC_RUN_ID", _ATTEMPT)
    elif not {"RANK", "WORLD_SIZE"} <= environment.keys():  # srun: every rank has the names of its step
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    else:  # started by hand, maybe not all of them inside the job
        names = ("WORLD_SIZE",)
    return ".".join(environment.get(name, "0") for name in names)


def meet(here: Place) -> dist.Store:
    """Return the store that all ranks of this job share, once all have connected.

    Raises `UserError` if another job uses this job's port, or if a rank does not connect within five minutes.
    """
    os.environ.setdefault("MASTER_PORT", str(default_port(os.environ)))
    address, token = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}", job_token(os.environ)
    try:
        store, _, _ = next(dist.rendezvous("env://", here.rank, here.world_size, timeout=_TIME_TO_MEET))
        key = f"easycap/job/{os.environ.get(_ATTEMPT, 0)}"  # torchrun's store outlives an attempt
        if here.rank == 0:
            store.set(key, token)
        found = store.get(key).decode()
    except RuntimeError as error:
        raise UserError(_why_not(error, here, address)) from error
    if found != token:
        raise UserError(
            f"another job ({found}) uses the port {address} of this one ({token}): give each job its own "
            "MASTER_PORT"
        )
    own = dist.PrefixStore(f"ranks/{token}", store)
    _wait_for_all(own, here, address)
    return own


def _wait_for_all(store: dist.Store, here: Place, address: str) -> None:
    store.set(f"here/{here.rank}", "")
    keys = [f"here/{rank}" for rank in range(here.world_size)]
    try:
        store.wait(keys, _TIME_TO_MEET)
    except RuntimeError as error:
        raise UserError(_why_not(error, here, address)) from error


def _why_not(error: RuntimeError, here: Place, address: str) -> str:
    reason = " ".join(str(error).split())
    if "EADDRINUSE" in reason or "already in use" in reason:
        return f"the port {address} is in use, perhaps by another training: set MASTER_PORT to a free one"
    return (
        f"rank {here.rank} of {here.world_size} did not connect to the others at {address} (MASTER_ADDR, MASTER_PORT): "
        f"{reason[:200]}"
    )
