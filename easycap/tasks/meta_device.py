"""Models run on the meta device: every tensor has its shape and none has values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


def tensors_in(value: Any, depth: int = 6) -> Iterator[torch.Tensor]:
    """Yield the tensors that a value holds, in containers and attributes up to `depth` deep."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth and not isinstance(value, (str, type, nn.Module)):
        slots = [getattr(value, name, None) for name in getattr(type(value), "__slots__", ())]
        inside = (
            value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else []
        )
        for item in [*inside, *slots, *getattr(value, "__dict__", {}).values()]:
            yield from tensors_in(item, depth - 1)


class _FusedAttention(torch.autograd.Function):
    """Saves what fused attention saves for the backward pass: not the (L,S) attention weights."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        found = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, found)
        return found


class _WithoutValues(TorchFunctionMode):
    """Lets models that branch on values run on meta: conditions are true, numbers are 1."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.scaled_dot_product_attention:
            named = (
                dict(zip(("query", "key", "value", "attn_mask", "dropout_p"), args, strict=False)) | kwargs
            )
            if not (
                self.device.type == "cpu" and named.get("dropout_p")
            ):  # there dropout has no fused kernel
                return _FusedAttention.apply(named["query"], named["key"], named["value"])
        answers = {
            "equal": False,
            "__bool__": True,
            "item": 1,
            "__int__": 1,
            "__index__": 1,
            "__float__": 1.0,
        }
        if getattr(func, "__name__", "") in answers:
            return answers[func.__name__]
        return func(*args, **kwargs)


@contextmanager
def without_values(device: torch.device) -> Iterator[None]:
    """Run models on the meta device, with attention as `device` would compute it."""
    with torch.device("meta"), _WithoutValues(device):
        yield
