"""The device and the number format to compute in."""

from __future__ import annotations

import contextlib
import logging
from enum import Enum

import torch
from torch import nn

from easycap.training.place import place

logger = logging.getLogger(__name__)


class Precision(Enum):
    """`auto` is bf16 where the hardware multiplies it natively, else fp32."""

    auto = "auto"
    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"


def pick_device(name: str) -> torch.device:
    """Return the device `name` (auto, cpu, cuda, cuda:1, mps); `ValueError` if this machine has no such device.

    Of several ranks each takes the GPU of its local number.
    """
    here = place()
    if here.count > 1 and torch.cuda.is_available() and name in ("auto", "cuda"):
        name = f"cuda:{here.local}"
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0][:120]
        raise ValueError(f"device={name} cannot be used ({reason}); try device=auto or device=cpu") from None
    return device


def has_bf16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 run natively on `device`."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return bool(
            torch.cpu.get_capabilities().get("avx512_bf16") or torch.cpu.get_capabilities().get("amx_bf16")
        )
    return False


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager:
    """Return the autocast context of `precision` on `device`; `ValueError` for bf16 where it is only emulated.

    fp16 is for GPUs without bf16 (T4, RTX 20): on a CPU it works, slowly.
    """
    if precision is Precision.fp16:
        if device.type not in ("cuda", "cpu"):
            raise ValueError(f"trainer.precision=fp16 is not supported on {device}; use fp32 or auto")
        return torch.autocast(device.type, dtype=torch.float16)
    if precision is Precision.bf16 and not has_bf16(device):
        raise ValueError(
            f"trainer.precision=bf16 is not native on {device}; use trainer.precision=fp32 or auto"
            + (", or fp16" if device.type == "cuda" else "")
        )
    if precision is Precision.fp32 or not has_bf16(device):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def compile_forward(captioner: nn.Module) -> None:
    """Let torch.compile translate the captioner's forward pass at its first call; `ValueError` without a compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise ValueError(
            "trainer.compile=true needs a C++ compiler (g++ or clang++) on this machine: install one, or leave it out"
        ) from None
    captioner.compile(dynamic=True)


def checkpoint_gradients(captioner: nn.Module) -> None:
    """Let encoder and decoder compute activations again in the backward pass; `ValueError` if neither can."""
    parts = {name: part for name, part in captioner.named_children() if name in ("encoder", "decoder")}
    able = [name for name, part in parts.items() if hasattr(part, "checkpoint_gradients")]
    if not able:
        raise ValueError(
            "trainer.gradient_checkpointing=true has no effect on this encoder and decoder: set it to false"
        )
    for name in parts:
        if name in able:
            parts[name].checkpoint_gradients()
        else:
            logger.warning("this %s has no gradient checkpointing: its activations stay in memory", name)
