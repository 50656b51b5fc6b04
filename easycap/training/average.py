"""An exponential moving average of the weights, for validation and the best checkpoint, if `trainer.ema` is set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from easycap.training.parts import exchange, is_part, part_like

_PREFIX = "average."


class AverageWeights:
    """average = decay x average + (1 - decay) x weight, after every step, of the weights that are trained.

    Early on the decay is (1 + step) / (10 + step), so that the random initial weights are soon forgotten. BatchNorm
    statistics are averages already and stay as they are. With `decay` None, nothing is averaged.
    """

    def __init__(self, module: nn.Module, decay: float | None) -> None:
        self.module, self.decay = module, decay
        self.averages: dict[str, torch.Tensor] = {}

    def update(self, step: int) -> None:
        """Update the averages with the weights after step number `step` (from 0)."""
        if self.decay is None:
            return
        weights = {name: p.detach() for name, p in self.module.named_parameters() if p.requires_grad}
        for name in weights.keys() - self.averages.keys():
            self.averages[name] = weights[name].clone()
        move = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))
        move([self.averages[name] for name in weights], list(weights.values()), step)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the averages in place of the weights inside this context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self.module.named_parameters():
            if name not in self.averages:
                continue
            if is_part(parameter):  # whose memory FSDP knows
                exchange(parameter, self.averages[name])
            else:  # exchanging storages copies nothing
                parameter.data, self.averages[name] = self.averages[name], parameter.data

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the averages by name, to be saved among a checkpoint's tensors."""
        return {_PREFIX + name: average for name, average in self.averages.items()}

    def load_state_dict(self, tensors: dict[str, torch.Tensor]) -> None:
        """Load the averages from a checkpoint's tensors."""
        parameters = dict(self.module.named_parameters())
        found = {key.removeprefix(_PREFIX): t for key, t in tensors.items() if key.startswith(_PREFIX)}
        self.averages = {
            name: part_like(parameters[name], average.to(parameters[name].device))
            for name, average in found.items()
        }
