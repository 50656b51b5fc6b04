"""Folders that appear complete or not at all: in the user's cache, what several processes need and one makes."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from easycap.utils.processes import lock


def cached_dir(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return `folder`, filled by `make(hidden folder)` unless it is there; who asks at the same time waits.

    Raises `OSError` where the place cannot be written.
    """
    if folder.is_dir():
        return folder
    with lock(folder.parent / ".locks" / folder.name):
        if not folder.is_dir():
            atomic_dir(folder, make)
    return folder


def atomic_dir(folder: Path, make: Callable[[Path], object]) -> None:
    """Let `make(hidden folder)` fill `folder`, in the place of what is there."""
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir(parents=True)
    try:
        make(hidden)
        shutil.rmtree(folder, ignore_errors=True)
        hidden.rename(folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def digest_of(texts: Iterable[str], *, code: Path) -> str:
    """Return 16 hex digits of texts and of the Python files in the folder `code`, whose work on them is kept: other
    code must not find what this code made.
    """
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(code.glob("*.py")):
        digest.update(file.read_bytes())
    remaining = iter(texts)
    while some := list(islice(remaining, 4096)):
        digest.update("\0".join([*some, ""]).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
