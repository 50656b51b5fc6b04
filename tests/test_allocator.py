"""glibc's thresholds: what they save is measured, and they are left alone where somebody has chosen otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from easycap.utils import allocator
from easycap.utils.allocator import _malloc_library, keep_freed_memory

# Page faults of taking and giving back 64 MiB ten times, after a first time; printed with what was done.
_FAULTS = """
import resource, sys
import numpy as np
from easycap.utils.allocator import keep_freed_memory, return_freed_memory
state = keep_freed_memory() if sys.argv[1] in ("raised", "lowered again") else ""
state = return_freed_memory() if sys.argv[1] == "lowered again" else state
def take():
    np.ones(2**23)
take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    take()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, state, sep=";")
"""
_GLIBC = (_malloc_library() or "").startswith("libc.")


@pytest.fixture(autouse=True)
def own_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_state", "unchanged")


def printed(code: str, *arguments: str, **environment: str) -> str:
    """What a new process prints, without the allocator settings of this one's environment."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=own | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def faults(how: str, **environment: str) -> tuple[int, str]:
    count, state = printed(_FAULTS, how, **environment).split(";")
    return int(count), state


@pytest.mark.skipif(not _GLIBC, reason="another C library")
def test_memory_that_was_given_back_is_not_taken_from_the_kernel_again() -> None:
    raised, state = faults("raised")
    assert state.startswith("glibc, mmap threshold")
    assert raised * 10 < faults("default")[0]
    lowered, state = faults("lowered again")
    assert state == "glibc, mmap threshold 1 MiB, trim threshold 1 MiB"
    assert raised * 10 < lowered


# Prints the MiB held after 400 MiB were used, before and after the call that may trim; argument: MiB left.
_HELD = """
import sys
import numpy as np
from easycap.utils import allocator
allocator.keep_freed_memory()
allocator.available_memory = lambda: int(sys.argv[1]) << 20
for size in (16, 16, 16, 400):
    [np.ones(2**17) for _ in range(size)]
    before = allocator.own_memory() >> 20
    allocator.trim_if_needed()
print(before, allocator.own_memory() >> 20)
"""


def held(left: int, **environment: str) -> list[int]:
    return [int(number) for number in printed(_HELD, str(left), **environment).split()]


@pytest.mark.skipif(not _GLIBC, reason="another C library")
def test_kept_memory_is_given_back_when_little_is_left() -> None:
    before, after = held(left=20)
    assert before > 400 and before - after > 350


@pytest.mark.skipif(not _GLIBC, reason="another C library")
def test_memory_is_kept_when_much_is_left_or_the_user_says_so() -> None:
    before, after = held(left=2000)
    assert after > 400 and before - after < 5
    before, after = held(20, MALLOC_MMAP_THRESHOLD_=str(2**30), MALLOC_TRIM_THRESHOLD_=str(2**40))
    assert after > 400 and before - after < 5


def test_the_heap_is_trimmed_beyond_1_3_times_the_largest_step_since_a_trim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trimmed = []
    monkeypatch.setattr(allocator, "_state", "glibc, mmap threshold 1024 MiB, no trimming")
    monkeypatch.setattr(allocator, "available_memory", lambda: 6)
    monkeypatch.setattr(
        allocator.ctypes, "CDLL", lambda _: SimpleNamespace(malloc_trim=lambda _: trimmed.append(taken))
    )
    limit = allocator.HeapLimit()
    for taken in (9, 13, 14, 18, 19, 13, 16, 20, 25, 26):
        monkeypatch.setattr(allocator, "own_memory", lambda taken=taken: taken)
        limit()
    # At 9, memory is not scarce. 14 and 25 were held after steps that followed a trim, so 1.3 times these may be kept.
    assert trimmed == [13, 19, 20]


@pytest.mark.skipif(not _GLIBC, reason="another C library")
def test_another_allocator_in_its_place_is_seen(tmp_path: Path) -> None:
    library = tmp_path / "libother.so"
    source = "#include <stddef.h>\nextern void *__libc_malloc(size_t);\n"
    source += "void *malloc(size_t size) { return __libc_malloc(size); }\n"
    try:
        command = ["cc", "-shared", "-fPIC", "-xc", "-", "-o", str(library)]
        subprocess.run(command, input=source, text=True, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no C compiler")
    code = "from easycap.utils.allocator import keep_freed_memory as keep; print(keep())"
    assert printed(code, LD_PRELOAD=str(library)) == "unchanged (malloc is libother.so's)"


@pytest.mark.parametrize(
    ("library", "environment", "expected"),
    [
        (None, {}, "unchanged (the C library is not glibc)"),
        ("libjemalloc.so.2", {}, "unchanged (malloc is libjemalloc.so.2's)"),
        ("libc.so.6", {"MALLOC_ARENA_MAX": "2"}, "unchanged (MALLOC_ARENA_MAX set by the user)"),
        (
            "libc.so.6",
            {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1"},
            "unchanged (GLIBC_TUNABLES set by the user)",
        ),
    ],
)
def test_what_others_chose_stays(
    library: str | None, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allocator, "_malloc_library", lambda: library)
    monkeypatch.setattr(allocator, "_set", lambda *thresholds: "raised")
    assert keep_freed_memory(environment) == expected == allocator.allocator_state()


def test_other_tunables_of_glibc_are_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_malloc_library", lambda: "libc-2.31.so")
    monkeypatch.setattr(allocator, "_set", lambda *thresholds: "raised")
    assert keep_freed_memory({"GLIBC_TUNABLES": "glibc.cpu.x86_ibt=on"}) == "raised"
