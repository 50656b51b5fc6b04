"""Tensors of which each rank has some rows: DTensors of torch, divided by their first dimension."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def is_part(tensor: Any) -> bool:
    """Whether ranks have one part each of a tensor."""
    return hasattr(tensor, "placements")  # torch's DTensor takes a second to import


def own_rows(tensor: Any) -> torch.Tensor:
    """Return the rows of a tensor that this rank has, in the same memory: all rows if it is not divided."""
    return tensor.to_local() if is_part(tensor) else tensor


def all_of_scalar(tensor: Any) -> torch.Tensor:
    """Return a scalar that ranks may have parts of, such as a norm, as an ordinary tensor; all ranks must call it."""
    return tensor.full_tensor() if is_part(tensor) else tensor


def part_like(divided: Any, whole: torch.Tensor) -> torch.Tensor:
    """Return this rank's part of `whole`, which all ranks have, divided as `divided` is, or `whole` if it is not."""
    if not is_part(divided) or not whole.ndim:
        return whole
    from torch.distributed.tensor import distribute_tensor

    whole = whole.to(divided.device)
    return distribute_tensor(whole, divided.device_mesh, divided.placements, src_data_rank=None)


def gathered(values: Any, *, keep: bool) -> Any:
    """Return nested dicts and lists with all rows of the divided tensors in them, on the CPU; None without `keep`.

    All ranks must call it. A tensor that occurs twice is gathered once.
    """
    found: dict[int, torch.Tensor] = {}

    def whole(value: Any) -> Any:
        if isinstance(value, Mapping):
            return _kept({key: whole(one) for key, one in value.items()}, keep)
        if isinstance(value, list):
            return _kept([whole(one) for one in value], keep)
        if not is_part(value):
            return value
        if id(value) not in found:
            rows = value.full_tensor().detach()
            found[id(value)] = rows.cpu() if keep else rows.new_empty(0)
        return found[id(value)]

    return whole(values)


def _kept(value: Any, keep: bool) -> Any:
    return value if keep else None


def exchange(first: torch.Tensor, second: torch.Tensor) -> None:
    """Exchange the values of two tensors that are divided alike, in place."""
    one, other = own_rows(first.detach()), own_rows(second)
    before = one.clone()
    one.copy_(other)
    other.copy_(before)
