"""Learning rate over time: step (from 0) -> factor of the peak learning rate.

All schedules warm up linearly over `warmup_steps`; those that end at the end of the training are given its length,
`total_steps`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from easycap.errors import UserError
from easycap.registry import register

Factor = Callable[[int], float]


def _with_warmup(warmup_steps: int, after: Factor) -> Factor:
    if warmup_steps < 0:
        raise UserError(f"schedule.warmup_steps={warmup_steps} must be 0 or more")
    return lambda step: (step + 1) / warmup_steps if step < warmup_steps else after(step)


def _check_final(final_factor: float) -> None:
    if not 0 <= final_factor < math.inf:
        raise UserError(
            f"schedule.final_factor={final_factor} must be 0 or a positive number: a multiple of the peak"
        )


def _progress(step: int, warmup_steps: int, total_steps: int) -> float:
    return min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))


@register("schedule", "constant")
def constant(*, warmup_steps: int) -> Factor:
    """The peak learning rate throughout."""
    return _with_warmup(warmup_steps, lambda step: 1.0)


@register("schedule", "cosine")
def cosine(total_steps: int, *, warmup_steps: int, final_factor: float) -> Factor:
    """Half a cosine from 1 down to `final_factor` at the end (1608.03983, without restarts)."""
    _check_final(final_factor)

    def after(step: int) -> float:
        half = 0.5 * (1 + math.cos(math.pi * _progress(step, warmup_steps, total_steps)))
        return final_factor + (1 - final_factor) * half

    return _with_warmup(warmup_steps, after)


@register("schedule", "linear")
def linear(total_steps: int, *, warmup_steps: int, final_factor: float) -> Factor:
    """A straight line from 1 down to `final_factor` at the end."""
    _check_final(final_factor)

    def after(step: int) -> float:
        return 1 - (1 - final_factor) * _progress(step, warmup_steps, total_steps)

    return _with_warmup(warmup_steps, after)


@register("schedule", "step")
def step(*, warmup_steps: int, every_steps: int, factor: float) -> Factor:
    """Multiplied by `factor` every `every_steps`."""
    if every_steps < 1:
        raise UserError(f"schedule.every_steps={every_steps} must be at least 1")
    if not 0 < factor < math.inf:
        raise UserError(f"schedule.factor={factor} must be above 0, e.g. 0.8")
    return _with_warmup(warmup_steps, lambda step: factor ** ((step - warmup_steps) // every_steps))


@register("schedule", "noam")
def noam(*, warmup_steps: int) -> Factor:
    """The inverse square root of the step after the warm-up (1706.03762, section 5.3).

    The peak is the optimiser's lr: the paper's d^-0.5 * warmup^-0.5 is 4.4e-4 for d = 512 and 10,000 steps.
    """
    return _with_warmup(warmup_steps, lambda step: math.sqrt(max(1, warmup_steps) / (step + 1)))
