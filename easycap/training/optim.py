"""Optimisers: AdamW for everything, or Muon for hidden matrices with AdamW for the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import nn

from easycap.errors import UserError
from easycap.models.decoders.recurrence import LSTMCell, MaxoutLSTM
from easycap.registry import register
from easycap.training.muon import MuonOptimizer
from easycap.training.parts import part_like
from easycap.utils.native_parts import is_transposed_linear


class Optimization:
    """Optimisers that step together: one learning rate schedule, one step, one state to save."""

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
        """Clear the gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def restart(self, factor: float) -> None:
        """Reset all moments and continue at a constant `factor` of the peak learning rates."""
        self.factor = lambda step: factor
        for optimizer in self.optimizers:
            optimizer.state.clear()

    @property
    def has_state(self) -> bool:
        """Whether the optimisers have created their moments, which happens in their first step."""
        return any(optimizer.state for optimizer in self.optimizers)

    def state_dict(self) -> list[dict]:
        """Return each optimiser's state."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict]) -> None:
        """Restore what `state_dict` returned, of optimisers for the same parameters, divided among ranks or not."""
        for optimizer, state in zip(self.optimizers, states, strict=True):
            params = [param for group in optimizer.param_groups for param in group["params"]]
            parts = {
                index: {
                    key: part_like(params[index], value) if torch.is_tensor(value) else value
                    for key, value in values.items()
                }
                for index, values in state["state"].items()
            }
            optimizer.load_state_dict(state | {"state": parts})

    def share_work(self) -> None:
        """Share work with the other ranks where that is possible: Muon's orthogonalisation."""
        for optimizer in self.optimizers:
            if isinstance(optimizer, MuonOptimizer):
                optimizer.share_work()


@register("optim", "adamw")
class AdamW:
    """AdamW with a learning rate of its own for the encoder; only hidden matrices are decayed.

    An instance holds the settings; called with a captioner and a schedule, it returns the `Optimization`.
    """

    def __init__(
        self, *, lr: float, encoder_lr: float, weight_decay: float, betas: tuple[float, float], eps: float
    ) -> None:
        _check_not_negative(lr=lr, encoder_lr=encoder_lr, weight_decay=weight_decay)
        _check_moments(betas, eps)
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

    An instance holds the settings; called with a captioner and a schedule, it returns the `Optimization`.
    `decay_lstm_biases` and `output_bias_factor` are for recipes of Caffe, where a bias has a weight's decay and
    learning rate unless its layer says otherwise.
    """

    def __init__(
        self,
        *,
        lr: float,
        encoder_lr: float,
        momentum: float,
        weight_decay: float,
        decay_lstm_biases: bool,
        output_bias_factor: float,
    ) -> None:
        _check_not_negative(lr=lr, encoder_lr=encoder_lr, weight_decay=weight_decay)
        _check_not_negative(output_bias_factor=output_bias_factor)
        _check_momentum(momentum)
        self.lr, self.encoder_lr = lr, encoder_lr
        self.momentum, self.weight_decay = momentum, weight_decay
        self.decay_lstm_biases, self.output_bias_factor = decay_lstm_biases, output_bias_factor

    def __call__(self, captioner: nn.Module, factor: Callable[[int], float]) -> Optimization:
        """Return the optimiser of all parameters, frozen ones included: they move once they get gradients."""
        lstm = {id(p) for p in _lstm_biases(captioner)} if self.decay_lstm_biases else set()
        apart = {id(p) for p in _output_biases(captioner)} if self.output_bias_factor != 1 else set()
        decayed, plain, output = list[nn.Parameter](), list[nn.Parameter](), list[nn.Parameter]()
        for p in captioner.parameters():
            (output if id(p) in apart else decayed if p.ndim > 1 or id(p) in lstm else plain).append(p)
        groups = _groups_by_part(captioner, decayed, self.lr, self.encoder_lr, self.weight_decay)
        groups += _groups_by_part(captioner, plain, self.lr, self.encoder_lr, 0.0)
        output_lr = self.lr * self.output_bias_factor
        groups += _groups_by_part(captioner, output, output_lr, self.encoder_lr, 0.0)
        return Optimization([torch.optim.SGD(groups, momentum=self.momentum)], factor)


@register("optim", "muon")
class Muon:
    """Muon for hidden matrices and convolutions, AdamW for embeddings, tables, vectors and the output layer.

    `matrix_lr` and `encoder_matrix_lr` are Muon's and in AdamW's units: updates are scaled to AdamW's typical size
    (2502.16982). `lr` and `encoder_lr` are those of the AdamW parts. Source of Muon: Jordan et al. 2024,
    kellerjordan.github.io/posts/muon. An instance holds the settings; called with a captioner and a schedule, it
    returns the `Optimization`.
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
        _check_not_negative(matrix_lr=matrix_lr, encoder_matrix_lr=encoder_matrix_lr)
        _check_not_negative(lr=lr, encoder_lr=encoder_lr, weight_decay=weight_decay)
        _check_momentum(momentum)
        _check_moments(betas, eps)
        self.matrix_lr, self.encoder_matrix_lr, self.momentum = matrix_lr, encoder_matrix_lr, momentum
        self.lr, self.encoder_lr, self.weight_decay = lr, encoder_lr, weight_decay
        self.betas, self.eps = betas, eps

    def __call__(self, captioner: nn.Module, factor: Callable[[int], float]) -> Optimization:
        """Return the optimisers of all parameters, frozen ones included: they move once they get gradients."""
        matrices = hidden_matrices(captioner)
        groups = _groups_by_part(
            captioner, matrices, self.matrix_lr, self.encoder_matrix_lr, self.weight_decay
        )
        muon = MuonOptimizer(
            groups, lr=self.matrix_lr, momentum=self.momentum, weight_decay=self.weight_decay
        )
        others = _groups_by_part(captioner, _others(captioner, matrices), self.lr, self.encoder_lr, 0.0)
        adamw = torch.optim.AdamW(others, betas=self.betas, eps=self.eps, fused=True)
        return Optimization([muon, adamw], factor)


def hidden_matrices(captioner: nn.Module) -> list[nn.Parameter]:
    """Return the weights of linear layers, convolutions and LSTMs; embeddings, tables and output layers are not among
    them.

    An output layer is a linear layer with as many rows as some embedding has, tied to it or not.
    """
    outputs = {id(module) for module in _output_layers(captioner)}
    found: dict[int, nn.Parameter] = {}
    for module in captioner.modules():
        is_matrix = isinstance(module, (nn.Linear, nn.Conv2d)) or is_transposed_linear(module)
        if is_matrix and id(module) not in outputs:
            weight = module.get_parameter("weight")
            found.setdefault(id(weight), weight)
        if isinstance(module, nn.LSTM):
            found.update((id(p), p) for p in module.parameters() if p.ndim == 2)
    return list(found.values())


def _output_layers(captioner: nn.Module) -> list[nn.Linear]:
    """The linear layers with as many rows as some embedding has."""
    vocabularies = {m.num_embeddings for m in captioner.modules() if isinstance(m, nn.Embedding)}
    return [m for m in captioner.modules() if isinstance(m, nn.Linear) and m.out_features in vocabularies]


def _output_biases(captioner: nn.Module) -> list[nn.Parameter]:
    return [layer.bias for layer in _output_layers(captioner) if layer.bias is not None]


def _lstm_biases(captioner: nn.Module) -> list[nn.Parameter]:
    cells = (m for m in captioner.modules() if isinstance(m, (nn.LSTM, LSTMCell, MaxoutLSTM)))
    return [p for cell in cells for p in cell.parameters() if p.ndim == 1]


def _others(captioner: nn.Module, matrices: list[nn.Parameter]) -> list[nn.Parameter]:
    taken = {id(p) for p in matrices}
    return [p for p in captioner.parameters() if id(p) not in taken]


def _groups_by_part(
    captioner: nn.Module, params: list[nn.Parameter], lr: float, encoder_lr: float, weight_decay: float
) -> list[dict]:
    encoder = {id(p) for p in captioner.get_submodule("encoder").parameters()}
    groups = [
        {"params": [p for p in params if id(p) in encoder], "lr": encoder_lr, "weight_decay": weight_decay},
        {"params": [p for p in params if id(p) not in encoder], "lr": lr, "weight_decay": weight_decay},
    ]
    return [group for group in groups if group["params"]]


def _check_not_negative(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise UserError(f"optim.{name}={value} must be 0 or a positive number")


def _check_momentum(momentum: float) -> None:
    if not 0 <= momentum < 1:
        raise UserError(f"optim.momentum={momentum} must be at least 0 and below 1, e.g. 0.9")


def _check_moments(betas: tuple[float, float], eps: float) -> None:
    if not all(0 <= beta < 1 for beta in betas):
        raise UserError(f"optim.betas={list(betas)}: both must be at least 0 and below 1, e.g. [0.9, 0.98]")
    if not 0 < eps < math.inf:  # without it a weight with no gradient yet would become nan
        raise UserError(f"optim.eps={eps} must be above 0, e.g. 1e-8")
