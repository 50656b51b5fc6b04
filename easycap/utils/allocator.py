"""Whether glibc's malloc keeps and reuses the memory of large tensors, or returns it to the kernel.

By default every tensor of a few MB gets freshly mapped and zeroed pages: a frozen CNN on a CPU spends as much time in
the kernel as in its own arithmetic. But tensors of changing sizes (logits of captions of changing lengths) leave gaps
that later ones do not fit in, and a heap that is never trimmed grows to several times what a step needs, so it is
trimmed where memory gets scarce. Sources: mallopt(3), malloc_trim(3).
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from easycap.utils.machine import available_memory

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = -1
# Bytes, tried in order: some versions of glibc refuse more than half of an arena's heap.
_MMAP_THRESHOLDS = (2**30, 2**25)
_LOW_THRESHOLD = 2**20
_GROWTH = 1.3  # times what was held after the largest step that followed a trim
_NO_TRIMMING = "no trimming"  # by malloc: `HeapLimit` does it

_state = "unchanged"


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> str:
    """Raise glibc's thresholds for this process and its forks, and return a description of what was done.

    Does nothing if another allocator provides malloc, or if the user has set MALLOC_* or glibc.malloc
    tunables.
    """
    return _with_thresholds(_MMAP_THRESHOLDS, _NEVER, environment)


def return_freed_memory(environment: Mapping[str, str] = os.environ) -> str:
    """Lower the thresholds instead, where memory matters more than time; otherwise as `keep_freed_memory`.

    Weights gathered for one block at a time leave gaps that larger tensors do not fit in, so kept memory grows to
    more than the whole model takes.
    """
    return _with_thresholds((_LOW_THRESHOLD,), _LOW_THRESHOLD, environment)


class HeapLimit:
    """Trims the heap when memory is scarce and more is held than the largest step needs, after `keep_freed_memory`.

    Getting trimmed pages back costs time: a fifth of the CPU time with 30,522 words (experiments/speed).
    """

    def __init__(self) -> None:
        self.largest = 0  # bytes held after a step that began with a trimmed heap
        self.trimmed = False

    def __call__(self) -> None:
        """Call after every training step and every batch of validation or generation."""
        if not _state.endswith(_NO_TRIMMING):
            return
        held = own_memory()
        if self.trimmed:
            self.largest = max(self.largest, held)
        self.trimmed = held > _GROWTH * self.largest and _is_scarce(held)
        if self.trimmed:
            ctypes.CDLL(None).malloc_trim(0)


trim_if_needed = HeapLimit()


def _is_scarce(held: int) -> bool:
    """Whether the memory left is less than half of what this process holds."""
    left = available_memory()
    return left is not None and left < held / 2


def own_memory() -> int:
    """Return the bytes of memory that this process holds on Linux, without mapped files and shared memory."""
    _, resident, shared = Path("/proc/self/statm").read_text(encoding="ascii").split()[:3]
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def allocator_state() -> str:
    """Return what the last of these calls did in this process, "unchanged" before any."""
    return _state


def _reason_to_leave(library: str | None, environment: Mapping[str, str]) -> str | None:
    if library is None:
        return "the C library is not glibc"
    if not library.startswith(("libc.so", "libc-")):
        return f"malloc is {library}'s"
    own = sorted(name for name in environment if name.startswith("MALLOC_"))
    if "glibc.malloc" in environment.get("GLIBC_TUNABLES", ""):
        own.append("GLIBC_TUNABLES")
    return f"{', '.join(own)} set by the user" if own else None


def _with_thresholds(mmap: Sequence[int], trim: int, environment: Mapping[str, str]) -> str:
    """Set the first of the `mmap` thresholds that glibc takes, and the `trim` threshold, in bytes."""
    global _state
    reason = _reason_to_leave(_malloc_library(), environment)
    _state = f"unchanged ({reason})" if reason else _set(mmap, trim)
    return _state


def _set(mmap: Sequence[int], trim: int) -> str:
    mallopt = ctypes.CDLL(None).mallopt
    for threshold in mmap:
        if mallopt(_M_MMAP_THRESHOLD, threshold) and mallopt(_M_TRIM_THRESHOLD, trim):
            trimmed = _NO_TRIMMING if trim == _NEVER else f"trim threshold {trim >> 20} MiB"
            return f"glibc, mmap threshold {threshold >> 20} MiB, {trimmed}"
    return "unchanged (glibc refused)"


class _SymbolInfo(ctypes.Structure):
    """Result of dladdr(3)."""

    _fields_ = [
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    ]


def _malloc_library() -> str | None:
    """Return the name of the library that provides malloc; None if the C library is not glibc."""
    if sys.platform != "linux":
        return None
    symbols, info = ctypes.CDLL(None), _SymbolInfo()
    if not hasattr(symbols, "gnu_get_libc_version"):
        return None
    address = ctypes.cast(symbols.malloc, ctypes.c_void_p)
    found = symbols.dladdr(address, ctypes.byref(info)) and info.file
    return Path(os.fsdecode(found)).name if found else None
