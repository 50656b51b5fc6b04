"""Timing two things next to each other, and writing down on what machine."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

CPU = torch.device("cpu")


def alternate(
    functions: dict[str, Callable[[], Any]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    device: torch.device = CPU,
) -> dict[str, list[float]]:
    """Return seconds of `clock` {name: one per round}: each once to warm up, then in turn.

    The order is reversed every round. Other work on the machine then slows all of them alike. A GPU is warmed up more
    often, as its first calls choose kernels, and a call has ended when the GPU has.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        for _ in range(1 if device.type == "cpu" else 3):
            function()
    wait_for(device)
    for number in range(rounds):
        names = list(functions) if number % 2 == 0 else list(reversed(functions))
        for name in names:
            started = clock()
            functions[name]()
            wait_for(device)
            seconds[name].append(clock() - started)
    return seconds


def wait_for(device: torch.device) -> None:
    """Return when a GPU has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratio(seconds: dict[str, list[float]], ours: str, theirs: str) -> dict[str, float]:
    """Return theirs / ours: the median of the rounds' ratios, with the lowest and highest."""
    ratios = [b / a for a, b in zip(seconds[ours], seconds[theirs], strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def machine(device: torch.device = CPU) -> dict[str, Any]:
    """Return what the figures depend on: processor, threads and versions, and of a GPU its name and driver."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    } | (gpu(device) if device.type == "cuda" else {})


def gpu(device: torch.device) -> dict[str, Any]:
    """Return the name, memory and driver of a GPU, and the versions of CUDA and cuDNN that torch has."""
    found = torch.cuda.get_device_properties(device)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        asked = subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.split()
    except OSError:
        asked = []
    return {
        "gpu": found.name,
        "gpu_memory_bytes": found.total_memory,
        "compute_capability": f"{found.major}.{found.minor}",
        "driver": asked[0] if asked else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def keep(path: Path | None, result: dict[str, Any]) -> None:
    """Write a result as JSON where the user asked for it."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def markdown(rows: list[dict[str, str]]) -> str:
    """Return rows of equal keys as a markdown table."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(row.values()) + " |" for row in rows])
