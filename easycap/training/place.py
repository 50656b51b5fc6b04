"""Which of several processes this is, from the environment that torchrun or SLURM set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from easycap.errors import UserError


class Place(NamedTuple):
    """Process `rank` (from 0) of `world_size`; `local_rank` counts within its machine."""

    rank: int
    world_size: int
    local_rank: int


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """Return this process's place; without a launcher it is the only one.

    `srun` sets SLURM_PROCID, SLURM_NTASKS and SLURM_LOCALID; the address of the first task must be in
    MASTER_ADDR. A batch script has SLURM_NTASKS too but is one process: without MASTER_ADDR the number of tasks of the
    step counts. `UserError` if a step of several tasks has no MASTER_ADDR: each task would train a model by itself.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return Place(
            int(environment["RANK"]), int(environment["WORLD_SIZE"]), int(environment.get("LOCAL_RANK", 0))
        )
    has_address = "MASTER_ADDR" in environment
    count = int(environment.get("SLURM_NTASKS" if has_address else "SLURM_STEP_NUM_TASKS", 1))
    if count == 1:
        return Place(0, 1, 0)
    if not has_address:
        raise UserError(
            f"srun started {count} tasks but MASTER_ADDR is not set; in the batch script: export "
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
        )
    return Place(int(environment["SLURM_PROCID"]), count, int(environment["SLURM_LOCALID"]))
