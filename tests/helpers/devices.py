"""The devices that a test runs on: the CPU, and, with the marker `gpu`, a GPU where there is one."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

_WITHOUT = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: torch finds none on this machine"
)
GPU = pytest.param("cuda", marks=[pytest.mark.gpu, _WITHOUT])
DEVICES = ["cpu", GPU]
# The same, for what takes long on a CPU.
SLOW_ON_CPU = [pytest.param("cpu", marks=pytest.mark.slow), GPU]


@contextmanager
def full_precision() -> Iterator[None]:
    """Let cuDNN compute in float32 itself, so that a GPU's numbers are close to a CPU's; products do so anyway."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def waits(function: Callable[[], Any], device: torch.device) -> int:
    """Return how often `function` waits for its device.

    On a CPU: how often a number is read from a tensor, or a shape depends on one, for which a GPU would be waited for.
    """
    if device.type == "cpu":
        with _Reads() as reads:
            function()
        return sum(reads.found.values())
    torch.cuda.synchronize(device)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            function()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in found)


class _Reads(TorchDispatchMode):
    """Counts the operations whose result the program has to know."""

    names = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if name in self.names or masks:
            self.found[name] += 1
        return func(*args, **kwargs or {})
