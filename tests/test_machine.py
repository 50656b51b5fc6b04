"""Cores and memory that a process may use, read from made-up control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from easycap.utils.machine import available_memory, usable_cores

GIB = 2**30


def files(root: Path, contents: dict[str, object]) -> Path:
    for name, content in contents.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
    return root


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)


@pytest.mark.parametrize(
    ("contents", "cores"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/job/step", "sys/fs/cgroup/job/step/cpu.max": "250000 100000"}, 2),
        ({"proc/self/cgroup": "0::/job/step", "sys/fs/cgroup/job/cpu.max": "300000 100000"}, 3),
        ({"proc/self/cgroup": "0::/job", "sys/fs/cgroup/job/cpu.max": "max 100000"}, 8),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        # hidden by a container: the group lies at the top
        ({"proc/self/cgroup": "0::/../../a", "sys/fs/cgroup/cpu.max": "400000 100000"}, 4),
        (
            {
                "proc/self/cgroup": "9:memory:/m\n4:cpu,cpuacct:/docker/a1\n0::/",
                "sys/fs/cgroup/cpu/docker/a1/cpu.cfs_quota_us": 600000,
                "sys/fs/cgroup/cpu/docker/a1/cpu.cfs_period_us": 100000,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": -1,
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000,
            },
            6,
        ),
        ({"proc/self/cgroup": "0::/job", "sys/fs/cgroup/job/cpu.max": "9900000 100000"}, 8),
    ],
)
def test_a_quota_limits_the_cores(
    contents: dict[str, object], cores: int, tmp_path: Path, eight_cores: None
) -> None:
    assert usable_cores(files(tmp_path, contents)) == cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_limits_the_cores() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("contents", "left"),
    [
        ({}, None),
        ({"proc/meminfo": f"MemTotal: 9 kB\nMemAvailable: {4 * 2**20} kB"}, 4 * GIB),
        (
            {
                "proc/meminfo": f"MemAvailable: {64 * 2**20} kB",
                "proc/self/cgroup": "0::/job/step",
                "sys/fs/cgroup/job/memory.max": 8 * GIB,
                "sys/fs/cgroup/job/memory.current": 5 * GIB,
                "sys/fs/cgroup/job/memory.stat": f"anon {GIB}\nfile {4 * GIB}",
                "sys/fs/cgroup/job/step/memory.max": "max",
                "sys/fs/cgroup/job/step/memory.current": 5 * GIB,
            },
            7 * GIB,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/a1",
                "sys/fs/cgroup/memory/docker/a1/memory.limit_in_bytes": 2 * GIB,
                "sys/fs/cgroup/memory/docker/a1/memory.usage_in_bytes": GIB,
                "sys/fs/cgroup/memory/docker/a1/memory.stat": "cache 3\ntotal_cache 1024",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
                "sys/fs/cgroup/memory/memory.usage_in_bytes": 50 * GIB,
            },
            GIB + 1024,
        ),
        (
            {
                "proc/self/cgroup": "0::/job",
                "sys/fs/cgroup/job/memory.max": GIB,
                "sys/fs/cgroup/job/memory.current": 2 * GIB,
            },
            0,
        ),
    ],
)
def test_the_least_of_machine_and_groups_is_left(
    contents: dict[str, object], left: int | None, tmp_path: Path
) -> None:
    assert available_memory(files(tmp_path, contents)) == left
