"""BatchNorm folded into the convolutions before it: the same function with fewer passes over the data."""

from __future__ import annotations

import copy
import logging
from collections import Counter
from typing import Any, TypeVar

import torch
from torch import nn

logger = logging.getLogger(__name__)

Module = TypeVar("Module", bound=nn.Module)
Pair = tuple[nn.Module, nn.Module]

# Exact classes, those of timm by name, as importing it costs seconds. A subclass may do more than its base, e.g.
# standardise a convolution's weights in every pass.
_CONVOLUTIONS = {"Conv1d", "Conv2d", "Conv3d", "Conv2dSame"}
_NORMS = {"BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"}
_NORMS_WITH_ACTIVATION = {"BatchNormAct2d"}  # timm's: norm, drop, act in one
_TOLERANCE = 1e-4  # of the largest value; in float32 a folded network is off by about 1e-6


@torch.no_grad()
def fold_batchnorm(module: Module, example: torch.Tensor) -> Module:
    """Return a copy of `module`, in eval mode, whose BatchNorm layers are part of the convolutions before them.

    Which layer feeds which is traced on `example`, an input of `module`; all weights except those of folded layers are
    shared with `module`, not copied. Returns `module` itself if there is nothing to fold or if the output would differ.
    """
    if module.training or not any(map(_is_norm, module.modules())):
        return module
    pairs, expected = _pair_up(module, example)
    if not pairs:
        return module
    folded = _folded_copy(module, pairs)
    if _agrees(folded(example), expected):
        return folded
    logger.debug("BatchNorm of %s is not folded: the result would differ", type(module).__name__)
    return module


def _is_norm(part: nn.Module) -> bool:
    return type(part).__name__ in _NORMS | _NORMS_WITH_ACTIVATION and part.running_mean is not None


def _pair_up(module: nn.Module, example: torch.Tensor) -> tuple[list[Pair], Any]:
    """Return the (convolution, norm) pairs in which one feeds the other and each is called once, and the output."""
    outputs: dict[int, tuple[nn.Module, torch.Tensor]] = {}  # with the tensor, so that its id stays taken
    pairs: list[Pair] = []
    calls: Counter[nn.Module] = Counter()

    def record(part: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
        calls[part] += 1
        outputs[id(output)] = (part, output)

    def pair(part: nn.Module, inputs: tuple) -> None:
        calls[part] += 1
        if id(inputs[0]) in outputs:
            pairs.append((outputs[id(inputs[0])][0], part))

    hooks = [
        part.register_forward_hook(record)
        for part in module.modules()
        if type(part).__name__ in _CONVOLUTIONS
    ]
    hooks += [part.register_forward_pre_hook(pair) for part in module.modules() if _is_norm(part)]
    try:
        expected = module(example)
    finally:
        for hook in hooks:
            hook.remove()
    return [(a, b) for a, b in pairs if calls[a] == calls[b] == 1], expected


def _folded_copy(module: Module, pairs: list[Pair]) -> Module:
    changed = {id(tensor) for pair in pairs for part in pair for tensor in _tensors_of(part)}
    # deepcopy treats the memo's entries as already copied, so the other weights are shared
    memo: dict[int, Any] = {id(t): t for t in _tensors_of(module) if id(t) not in changed}
    folded = copy.deepcopy(module, memo)
    replacements: dict[nn.Module, nn.Module] = {}
    for convolution, norm in pairs:
        own, own_norm = memo[id(convolution)], memo[id(norm)]
        _fold(own, own_norm)
        replacements[own_norm] = _without_norm(own_norm)
    for parent in list(folded.modules()):
        for name, child in parent.named_children():
            if child in replacements:
                setattr(parent, name, replacements[child])
    return folded


def _tensors_of(part: nn.Module) -> list[torch.Tensor]:
    return [*part.parameters(), *part.buffers()]


def _fold(convolution: nn.Conv2d, norm: Any) -> None:
    """Fold `norm`, which is scale x output + shift per channel, into `convolution`."""
    scale = (_exact(norm.running_var) + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * _exact(norm.weight)
    shift = -_exact(norm.running_mean) * scale
    if norm.bias is not None:
        shift = shift + _exact(norm.bias)
    if convolution.bias is not None:
        shift = shift + _exact(convolution.bias) * scale
    weight = convolution.weight
    scaled = _exact(weight) * scale.view(-1, *[1] * (weight.ndim - 1))
    convolution.weight = nn.Parameter(scaled.to(weight), requires_grad=False)
    convolution.bias = nn.Parameter(shift.to(weight), requires_grad=False)


def _exact(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().double()  # some accelerators have no float64


def _without_norm(norm: Any) -> nn.Module:
    """What a norm layer does besides normalising."""
    if type(norm).__name__ in _NORMS_WITH_ACTIVATION:
        return nn.Sequential(norm.drop, norm.act)
    return nn.Identity()


def _agrees(found: Any, expected: Any) -> bool:
    def close(a: torch.Tensor, b: torch.Tensor) -> bool:
        a, b = _exact(a), _exact(b)
        return a.shape == b.shape and bool(((a - b).abs() <= _TOLERANCE * b.abs().max()).all())

    pairs = zip(_tensors_in(found), _tensors_in(expected), strict=True)
    return all(close(a, b) for a, b in pairs)


def _tensors_in(output: Any) -> list[torch.Tensor]:
    parts = [output] if isinstance(output, torch.Tensor) else output
    return [part for part in parts if isinstance(part, torch.Tensor)]
