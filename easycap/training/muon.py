"""Muon: momentum with orthogonalised updates, computed together for matrices of equal shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import nn

from easycap.training.hardware import has_bf16
from easycap.training.parts import is_part, own_rows
from easycap.training.shared_muon import share_rows, share_whole

# x <- (a + b x x' + c (x x')^2) x, a few times, brings singular values between 0.01 and 1 to about 1 (0.68 to 1.14).
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
_SMALLEST_NORM = 1e-7
# Aspect ratio from which iterating on x x' alone takes fewer operations.
_WIDE = 1.5


class MuonOptimizer(torch.optim.Optimizer):
    """Muon for matrices, and for convolutions as matrices (out, in*h*w).

    momentum <- mean of the gradients, decaying by `momentum`; update <- Nesterov's look-ahead of it, orthogonalised;
    weight <- (1 - lr weight_decay) weight - 0.2 lr sqrt(longer side) update. Rule and constants: Jordan et al. 2024,
    kellerjordan.github.io/posts/muon; updates have AdamW's typical size (2502.16982). Equivalent to torch.optim.Muon
    with adjust_lr_fn=match_rms_adamw, whose state it can load.
    """

    def __init__(
        self,
        params: Sequence[nn.Parameter] | Sequence[dict],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._shared = False

    def share_work(self) -> None:
        """Share the orthogonalisation with the other ranks, which have the same gradients."""
        self._shared = True

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all matrices that have gradients; `closure` must be None."""
        assert closure is None
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._move(params, group)
        return None

    def _move(self, params: list[torch.Tensor], group: dict[str, Any]) -> None:
        own = [own_rows(param) for param in params]
        if group["weight_decay"]:
            torch._foreach_mul_(own, 1 - group["lr"] * group["weight_decay"])
        updates = self._orthogonalized(params, self._look_ahead(params, group["momentum"]))
        for param, rows, update in zip(params, own, updates, strict=True):
            size = 0.2 * group["lr"] * math.sqrt(max(len(param), param.numel() // len(param)))
            rows.add_(update.view(rows.shape), alpha=-size)

    def _look_ahead(self, params: list[torch.Tensor], momentum: float) -> list[torch.Tensor]:
        """Update the momentum with the gradients; return the Nesterov updates as matrices, this rank's rows of them."""
        grads = [p.grad.flatten(1) for p in params if p.grad is not None]
        for param, grad in zip(params, grads, strict=True):
            if not self.state[param]:
                self.state[param]["momentum_buffer"] = torch.zeros_like(grad)
        buffers = [own_rows(self.state[param]["momentum_buffer"]) for param in params]
        grads = [own_rows(grad) for grad in grads]
        torch._foreach_lerp_(buffers, grads, 1 - momentum)
        return list(torch._foreach_lerp(grads, buffers, momentum))

    def _orthogonalized(self, params: list[torch.Tensor], updates: list[torch.Tensor]) -> list[torch.Tensor]:
        if is_part(params[0]):
            return share_rows(updates, [len(param) for param in params], orthogonalize)
        return share_whole(updates, orthogonalize) if self._shared else orthogonalize(updates)


def orthogonalize(matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return each matrix with its singular values moved to about 1.

    Computed in bfloat16 if the device supports it natively, else in the matrices' own dtype.
    """
    positions: dict[tuple[int, ...], list[int]] = {}
    for i, matrix in enumerate(matrices):
        positions.setdefault(tuple(sorted(matrix.shape)), []).append(i)
    found = list(matrices)
    for members in positions.values():
        lying = [matrices[i] if _is_wide(matrices[i]) else matrices[i].T for i in members]
        for i, matrix in zip(members, orthogonalize_stack(torch.stack(lying)), strict=True):
            found[i] = matrix if _is_wide(matrices[i]) else matrix.T
    return found


def _is_wide(matrix: torch.Tensor) -> bool:
    return matrix.shape[0] <= matrix.shape[1]


def orthogonalize_stack(x: torch.Tensor) -> torch.Tensor:
    """Newton-Schulz iteration on matrices (S,R,C) with R <= C."""
    half = has_bf16(x.device)
    wide = x.shape[2] >= _WIDE * x.shape[1]
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=_SMALLEST_NORM)
    if half:
        return _iterate(x.bfloat16()).to(x.dtype)
    return _iterate_on_gram(x) if wide else _iterate(x)


def _iterate(x: torch.Tensor) -> torch.Tensor:
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x


def _iterate_on_gram(x: torch.Tensor) -> torch.Tensor:
    """The same result: the factors p_k = a + b g + c g^2 are polynomials in g = x x', so they commute, and the next g
    is p_k g p_k. Except at the start and the end, only R x R matrices are multiplied. Squared singular values need
    more precision than bfloat16 has.
    """
    gram = x @ x.mT
    product = factor = _factor(gram)
    for _ in range(_ITERATIONS - 1):
        gram = factor @ gram @ factor
        factor = _factor(gram)
        product = factor @ product
    return product @ x


def _factor(gram: torch.Tensor) -> torch.Tensor:
    factor = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
    factor.diagonal(dim1=1, dim2=2).add_(_A)
    return factor
