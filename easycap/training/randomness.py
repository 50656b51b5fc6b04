"""The random numbers of training (dropout, sampling): kept in checkpoints, different on every rank."""

from __future__ import annotations

import logging

import torch

from easycap.data.sampler import hash_seed
from easycap.training.distributed import Ranks

logger = logging.getLogger(__name__)


def seed_rank(ranks: Ranks, step: int) -> None:
    """Seed each rank differently, so that dropout differs; rank 0 has the random numbers of a run with one rank."""
    if not ranks.is_main:
        torch.manual_seed(hash_seed(torch.initial_seed(), step, ranks.rank))


def random_state(ranks: Ranks, device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of the random number generators of all ranks."""
    states = {f"rng.cpu.{ranks.rank}": torch.get_rng_state()}
    if device.type == "cuda":
        states[f"rng.cuda.{ranks.rank}"] = torch.cuda.get_rng_state(device)
    return ranks.all_gather_dict(states)


def restore_random_state(
    states: dict[str, torch.Tensor], ranks: Ranks, device: torch.device, step: int
) -> None:
    """Restore this rank's own state from a checkpoint's tensors."""
    own = {kind: states.get(f"rng.{kind}.{ranks.rank}") for kind in ("cpu", "cuda")}
    if own["cpu"] is None:
        logger.warning("the checkpoint has random states for fewer ranks: dropout will differ")
        seed_rank(ranks, step)
        return
    torch.set_rng_state(own["cpu"])
    if own["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(own["cuda"], device)
