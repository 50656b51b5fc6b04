"""Optimisers: AdamW for everything, or Muon for hidden matrices with AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from easycap.registry import register


class Optimization:
    """Optimisers that move together: one learning rate schedule, one step, one state to save."""

    def __init__(self, optimizers: list[torch.optim.Optimizer], factor: Callable[[int], float]) -> None:
        self.optimizers, self.factor = optimizers, factor
        for group in self._groups():
            group["peak_lr"] = group["lr"]

    def _groups(self) -> Iterator[dict]:
        for optimizer in self.optimizers:
            yield from optimizer.param_groups

    def step(self, step: int) -> float:
        """Apply the gradients at the learning rate of step number `step` (from 0) and clear them.

        Returns the schedule's factor, for the log.
        """
        factor = self.factor(step)
        for group in self._groups():
            group["lr"] = group["peak_lr"] * factor
        for optimizer in self.optimizers:
            optimizer.step()
        self.zero_grad()
        return factor

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def restart(self, factor: float) -> None:
        """Forget all moments and go on at a constant `factor` of the peak learning rates."""
        self.factor = lambda step: factor
        for optimizer in self.optimizers:
            optimizer.state.clear()

    @property
    def has_state(self) -> bool:
        """Whether the optimisers have made their moments, which they do in their first step."""
        return any(optimizer.state for optimizer in self.optimizers)

    def state_dict(self) -> list[dict]:
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict]) -> None:
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


class MuonForTensors(torch.optim.Muon):
    """torch's Muon (for hidden matrices) that also takes convolutions, as matrices (out, in*h*w).

    torch.optim.Muon accepts leaf matrices only. Each parameter is therefore handed over as a matrix that shares
    its storage, and its gradient is lent to the matrix for the time of a step.
    """

    def __init__(self, groups: list[dict], **settings: object) -> None:
        self._pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        super().__init__(
            [{**group, "params": [self._as_matrix(p) for p in group["params"]]} for group in groups],
            **settings,
        )

    def _as_matrix(self, param: nn.Parameter) -> nn.Parameter:
        matrix = nn.Parameter(param.detach().flatten(1))
        assert matrix.data_ptr() == param.data_ptr(), "a parameter must be contiguous to be seen as a matrix"
        self._pairs.append((param, matrix))
        return matrix

    def step(self, closure: Callable | None = None) -> None:
        for param, matrix in self._pairs:
            matrix.grad = None if param.grad is None else param.grad.flatten(1)
        super().step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for param, matrix in self._pairs:
            param.grad = matrix.grad = None


@register("optim", "adamw")
class AdamW:
    """AdamW with a learning rate of its own for the encoder; only hidden matrices are decayed.

    The settings of it: called with a captioner and a schedule they make the `Optimization`.
    """

    def __init__(
        self, *, lr: float, encoder_lr: float, weight_decay: float, betas: tuple[float, float], eps: float
    ) -> None:
        _check_not_negative(lr=lr, encoder_lr=encoder_lr, weight_decay=weight_decay)
        self.lr, self.encoder_lr, self.weight_decay = lr, encoder_lr, weight_decay
        self.betas, self.eps = betas, eps

    def __call__(self, captioner: nn.Module, factor: Callable[[int], float]) -> Optimization:
        """Return the optimiser of all parameters, frozen ones included: they move once they get gradients."""
        matrices = hidden_matrices(captioner)
        groups = _groups_by_part(captioner, matrices, self.lr, self.encoder_lr, self.weight_decay)
        groups += _groups_by_part(captioner, _others(captioner, matrices), self.lr, self.encoder_lr, 0.0)
        return Optimization([torch.optim.AdamW(groups, betas=self.betas, eps=self.eps, fused=True)], factor)


@register("optim", "sgd")
class SGD:
    """Stochastic gradient descent with momentum; everything but vectors is decayed.

    The settings of it: called with a captioner and a schedule they make the `Optimization`.
    """

    def __init__(self, *, lr: float, encoder_lr: float, momentum: float, weight_decay: float) -> None:
        _check_not_negative(lr=lr, encoder_lr=encoder_lr, momentum=momentum, weight_decay=weight_decay)
        self.lr, self.encoder_lr = lr, encoder_lr
        self.momentum, self.weight_decay = momentum, weight_decay

    def __call__(self, captioner: nn.Module, factor: Callable[[int], float]) -> Optimization:
        """Return the optimiser of all parameters, frozen ones included: they move once they get gradients."""
        parameters = list(captioner.parameters())
        matrices, vectors = ([p for p in parameters if (p.ndim > 1) == wanted] for wanted in (True, False))
        groups = _groups_by_part(captioner, matrices, self.lr, self.encoder_lr, self.weight_decay)
        groups += _groups_by_part(captioner, vectors, self.lr, self.encoder_lr, 0.0)
        return Optimization([torch.optim.SGD(groups, momentum=self.momentum)], factor)


@register("optim", "muon")
class Muon:
    """Muon for hidden matrices and convolutions, AdamW for embeddings, tables, vectors and the output layer.

    `matrix_lr` and `encoder_matrix_lr` are Muon's and in AdamW's units: updates are scaled to AdamW's typical size
    (2502.16982). `lr` and `encoder_lr` are those of the AdamW parts. Source of Muon: Jordan et al. 2024,
    kellerjordan.github.io/posts/muon, through torch.optim.Muon. Called with a captioner and a schedule, these settings
    make the `Optimization`.
    """

    def __init__(
        self,
        *,
        matrix_lr: float,
        encoder_matrix_lr: float,
        momentum: float,
        lr: float,
        encoder_lr: float,
        weight_decay: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        _check_not_negative(matrix_lr=matrix_lr, encoder_matrix_lr=encoder_matrix_lr, momentum=momentum)
        _check_not_negative(lr=lr, encoder_lr=encoder_lr, weight_decay=weight_decay)
        self.matrix_lr, self.encoder_matrix_lr, self.momentum = matrix_lr, encoder_matrix_lr, momentum
        self.lr, self.encoder_lr, self.weight_decay = lr, encoder_lr, weight_decay
        self.betas, self.eps = betas, eps

    def __call__(self, captioner: nn.Module, factor: Callable[[int], float]) -> Optimization:
        """Return the optimisers of all parameters, frozen ones included: they move once they get gradients."""
        matrices = hidden_matrices(captioner)
        muon = MuonForTensors(
            _groups_by_part(captioner, matrices, self.matrix_lr, self.encoder_matrix_lr, self.weight_decay),
            momentum=self.momentum,
            adjust_lr_fn="match_rms_adamw",
        )
        others = _groups_by_part(captioner, _others(captioner, matrices), self.lr, self.encoder_lr, 0.0)
        adamw = torch.optim.AdamW(others, betas=self.betas, eps=self.eps, fused=True)
        return Optimization([muon, adamw], factor)


def hidden_matrices(captioner: nn.Module) -> list[nn.Parameter]:
    """Return the weights of linear layers, convolutions and LSTMs; embeddings, tables and output layers are not among
    them.

    An output layer is a linear layer with as many rows as some embedding has, tied to it or not.
    """
    vocabularies = {m.num_embeddings for m in captioner.modules() if isinstance(m, nn.Embedding)}
    found: dict[int, nn.Parameter] = {}
    for module in captioner.modules():
        is_output = isinstance(module, nn.Linear) and module.out_features in vocabularies
        if isinstance(module, (nn.Linear, nn.Conv2d, Conv1D)) and not is_output:
            found.setdefault(id(module.weight), module.weight)
        if isinstance(module, nn.LSTM):
            found.update((id(p), p) for p in module.parameters() if p.ndim == 2)
    return list(found.values())


def _others(captioner: nn.Module, matrices: list[nn.Parameter]) -> list[nn.Parameter]:
    taken = {id(p) for p in matrices}
    return [p for p in captioner.parameters() if id(p) not in taken]


def _groups_by_part(
    captioner: nn.Module, params: list[nn.Parameter], lr: float, encoder_lr: float, weight_decay: float
) -> list[dict]:
    encoder = {id(p) for p in captioner.encoder.parameters()}
    groups = [
        {"params": [p for p in params if id(p) in encoder], "lr": encoder_lr, "weight_decay": weight_decay},
        {"params": [p for p in params if id(p) not in encoder], "lr": lr, "weight_decay": weight_decay},
    ]
    return [group for group in groups if group["params"]]


def _check_not_negative(**values: float) -> None:
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"optim.{name}={value} must not be negative")
