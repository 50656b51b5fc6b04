"""Loss scaling for fp16, whose smallest numbers are larger than many gradients (1710.03740, section 3.2)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from easycap.training.hardware import Precision
from easycap.training.optim import Optimization


class ScaledOptimization:
    """An Optimization that scales the loss in fp16; otherwise the scale is 1 and nothing changes.

    A step whose gradients overflowed is skipped and the scale halved; after 2,000 good steps it is doubled.
    """

    def __init__(
        self, optimization: Optimization, module: nn.Module, *, device: torch.device, precision: Precision
    ) -> None:
        self.optimization = optimization
        # torch's scaler asks an optimiser for its parameters and calls its step: this object stands in for all of them.
        self.param_groups = [{"params": list(module.parameters())}]
        self._as_optimizer = cast(torch.optim.Optimizer, self)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision is Precision.fp16)
        self._step = 0

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of the scaled loss."""
        self.scaler.scale(loss).backward()

    def unscale(self) -> None:
        """Undo the scaling of the gradients, so that they can be clipped and logged."""
        self.scaler.unscale_(self._as_optimizer)

    def apply(self, step: int) -> dict[str, float]:
        """Take step number `step` (from 0), or skip it if gradients overflowed; return what to log."""
        self._step = step
        self.scaler.step(self._as_optimizer)
        self.scaler.update()
        self.optimization.zero_grad()
        values = {"lr_factor": self.optimization.factor(step)}
        return values | ({"loss_scale": self.scaler.get_scale()} if self.scaler.is_enabled() else {})

    def step(self) -> None:
        """Called by the scaler if all gradients are finite."""
        self.optimization.step(self._step)

    def state_dict(self) -> dict[str, Any]:
        """Return the scaler's state; empty unless in fp16."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, where a scale is used."""
        if state and self.scaler.is_enabled():
            self.scaler.load_state_dict(state)
