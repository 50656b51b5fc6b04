"""The device and the number format to compute in."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from enum import Enum

import torch
from torch import nn

from easycap.errors import UserError
from easycap.training.place import Place, place

logger = logging.getLogger(__name__)

# Values of ONEDNN_MAX_CPU_ISA that disable bfloat16 instructions in oneDNN, which torch uses for bfloat16 on CPUs.
_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")


class Precision(Enum):
    """`auto` is bf16 where the hardware multiplies it natively, else fp32."""

    auto = "auto"
    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"


def pick_device(name: str) -> torch.device:
    """Return the device `name` (auto, cpu, cuda, cuda:1, mps); `UserError` if this machine has no such device.

    With several ranks, each uses the GPU numbered by its local rank; if there are fewer GPUs, ranks share them.
    """
    here = place()
    if here.world_size > 1 and torch.cuda.is_available() and name in ("auto", "cuda"):
        name = f"cuda:{local_gpu(here)}"
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|(cuda|xpu)(:\d+)?", name):
        raise UserError(
            f"device={name!r} is not a device; allowed: auto, cpu, cuda, cuda:0, cuda:1, ..., mps, xpu"
        )
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UserError(f"device={name}: {_why_not(name)}; use device=auto or device=cpu") from None
    return torch.device(name)


def make_default(device: torch.device) -> None:
    """Make `device` the default GPU, also for code that names none, such as the thread that page-locks batches."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)


def local_gpu(here: Place) -> int:
    """Return the number of a rank's GPU. A launcher may show each rank only one GPU: cuda:0."""
    return here.local_rank % torch.cuda.device_count()


def _why_not(name: str) -> str:
    """Why this machine cannot compute on the device `name`."""
    kind = name.partition(":")[0]
    if kind == "mps":
        return "torch finds no Apple GPU on this machine"
    found = getattr(torch, kind).device_count()
    if found:
        last = f" to {kind}:{found - 1}" if found > 1 else ""
        return f"this machine has {found} such device{'s' * (found > 1)}, {kind}:0{last}"
    without = kind == "cuda" and torch.version.cuda is None
    return f"torch finds no {kind} device on this machine" + " (this torch is built without CUDA)" * without


def has_bf16(device: torch.device) -> bool:
    """Return whether torch multiplies bfloat16 natively on `device`.

    A CPU must have the instructions, and torch must be allowed to use them: ATEN_CPU_CAPABILITY and
    ONEDNN_MAX_CPU_ISA can disable them.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and _cpu_has_bf16()


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    if not (capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")):
        return False
    # oneDNN reads both names; the first takes precedence.
    names = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
    limit = next((os.environ[name] for name in names if os.environ.get(name)), "")
    return (
        torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and torch.backends.mkldnn.is_available()
        and limit.upper() not in _WITHOUT_BF16
    )


def training_precision(setting: Precision, device: torch.device) -> Precision:
    """Return the precision of a new run with trainer.precision=`setting` on `device`, never auto.

    Raises `UserError` for bf16 where it is only emulated. fp16 is for GPUs without bf16 (T4, RTX 20): on a CPU it
    works, slowly.
    """
    if setting is Precision.auto:
        return Precision.bf16 if has_bf16(device) else Precision.fp32
    if setting is Precision.fp16 and device.type not in ("cuda", "cpu"):
        raise UserError(f"trainer.precision=fp16 is not supported on {device}; use fp32 or auto")
    if setting is Precision.bf16 and not has_bf16(device):
        raise UserError(
            f"trainer.precision=bf16 is only emulated on {device}, and slow; use trainer.precision=fp32 or auto"
            + (", or fp16" if device.type == "cuda" else "")
        )
    return setting


def inference_precision(setting: Precision, device: torch.device) -> Precision:
    """Return the precision to caption in on `device` with a model trained with trainer.precision=`setting`.

    Unlike training, captioning falls back to fp32 if the precision is not native.
    """
    try:
        return training_precision(setting, device)
    except UserError:
        return Precision.fp32


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager:
    """Return the autocast context of `precision`, which is not auto, on `device`."""
    if precision is Precision.fp32:
        return contextlib.nullcontext()
    dtypes = {Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}
    return torch.autocast(device.type, dtype=dtypes[precision])


def compile_forward(captioner: nn.Module) -> None:
    """Let torch.compile translate the captioner's forward pass at its first call; `UserError` without a compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise UserError(
            "trainer.compile=true needs a C++ compiler (g++ or clang++) on this machine: install one, or leave it out"
        ) from None
    captioner.compile(dynamic=True)


def checkpoint_gradients(captioner: nn.Module) -> None:
    """Let encoder and decoder compute activations again in the backward pass; `UserError` if neither can."""
    own = getattr(captioner, "checkpoint_gradients", None)
    if callable(own):
        own()
        return
    methods = {
        name: getattr(part, "checkpoint_gradients", None)
        for name, part in captioner.named_children()
        if name in ("encoder", "decoder")
    }
    if not any(methods.values()):
        raise UserError(
            "trainer.gradient_checkpointing=true has no effect on this encoder and decoder: set it to false"
        )
    for name, checkpoint in methods.items():
        if checkpoint is not None:
            checkpoint()
        else:
            logger.warning("this %s has no gradient checkpointing: its activations stay in memory", name)
