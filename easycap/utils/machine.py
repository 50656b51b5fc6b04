"""Cores and memory that this process may use, as limited by CPU affinity and control groups; garbage collection."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path("/")


def usable_cores(root: Path = _ROOT) -> int:
    """Return how many cores this process can use at a time: its affinity, limited by a CPU quota.

    `root` is the folder of /proc and /sys. A quota of 2.5 cores counts as 2, as more threads would only wait.
    """
    if hasattr(os, "process_cpu_count"):
        cores = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quotas = [*_quotas_v2(root), *_quotas_v1(root)]
    return max(1, min([cores, *map(math.floor, quotas)]))


def available_memory(root: Path = _ROOT) -> int | None:
    """Return how many bytes this process can still allocate before the OOM killer acts; None if unknown.

    This is the minimum of the machine's available memory and what each control group has left. The page cache of files
    counts as free, as the kernel reclaims it first.
    """
    left = [*_available_of_machine(root), *_left_v2(root), *_left_v1(root)]
    return max(0, min(left)) if left else None


def _quotas_v2(root: Path) -> Iterator[float]:
    for folder in _groups(root, ""):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)


def _quotas_v1(root: Path) -> Iterator[float]:
    for folder in _groups(root, "cpu"):
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota and period:
            yield quota / period


def _available_of_machine(root: Path) -> Iterator[int]:
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield 1024 * int(value.split()[0])


def _left_v2(root: Path) -> Iterator[int]:
    yield from _left(root, "", "memory.max", "memory.current", "file")


def _left_v1(root: Path) -> Iterator[int]:
    yield from _left(root, "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")


def _left(root: Path, controller: str, limit: str, used: str, cached: str) -> Iterator[int]:
    for folder in _groups(root, controller):
        most, taken = _number(folder / limit), _number(folder / used)
        if most is None or taken is None or most >= 2**60:  # v1 says "no limit" by a huge number
            continue
        lines = dict(line.split() for line in _text(folder / "memory.stat").splitlines())
        yield most - taken + int(lines.get(cached, 0))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control group and its ancestors; `controller` "" means cgroup v2.

    In a container that does not see the groups above its own, its group is the root.
    """
    mount = root / "sys/fs/cgroup" / controller
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        group = mount / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))
        if not controller:
            yield mount / "unified"


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text.isdigit() else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """While many objects are made and most are kept, looking for garbage among them takes most of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
