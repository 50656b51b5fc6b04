"""Checksums of the files of a folder: detect bits that changed on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from easycap.utils.cache import atomic_dir

# Written last. `sha256sum -c checksums.txt` reads it.
CHECKSUMS = "checksums.txt"


def write_checksums(
    folder: Path, known: Mapping[str, str] | None = None, *, without: Collection[str] = ()
) -> None:
    """Write the SHA-256 of every file of `folder` into checksums.txt there, but of those named in `without`.

    Of files linked from elsewhere the digests are `known` {name: digest}: if they have changed since, it is noticed.
    """
    digests = dict(known or {})
    files = [path for path in _files(folder) if path.name not in (CHECKSUMS, *without)]
    names = {path: path.relative_to(folder).as_posix() for path in files}
    new = [path for path, name in names.items() if name not in digests]
    digests |= {names[path]: digest for path, digest in zip(new, _digests(new), strict=True)}
    lines = (f"{digests[name]}  {name}\n" for name in names.values())
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def known_checksums(files: Iterable[Path]) -> dict[str, str]:
    """Return {name: SHA-256} of files as the checksums.txt next to each has it; files without one are left out."""
    found = {}
    for file in files:
        with suppress(OSError):
            for line in (file.parent / CHECKSUMS).read_text(encoding="utf-8").splitlines():
                if line[66:] == file.name:
                    found[file.name] = line[:64]
    return found


def saved_dir(folder: Path, make: Callable[[Path], object]) -> None:
    """Let `make(hidden folder)` fill `folder`, in the place of what is there, and add checksums of its files."""

    def make_and_sum(hidden: Path) -> None:
        make(hidden)
        write_checksums(hidden)

    atomic_dir(folder, make_and_sum)


def damage(folder: Path) -> str | None:
    """Return which file of `folder` is not what checksums.txt says, None if all are.

    A folder without checksums.txt, as earlier versions wrote it, counts as intact. Within a process files are read
    once, unless their size or time has changed.
    """
    while (folder / CHECKSUMS).is_file():
        state = _state(folder)
        reason = _damage(folder, state)
        if reason is None or state == _state(folder):  # else it was replaced meanwhile, by a run in training
            return reason
    return None


def _state(folder: Path) -> tuple[tuple[Any, ...], ...]:
    found = []
    for path in _files(folder):
        with suppress(FileNotFoundError):
            stat = path.stat()
            found.append((path, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(found)


@lru_cache(maxsize=64)
def _damage(folder: Path, _state: tuple[tuple[Any, ...], ...]) -> str | None:
    try:
        text = (folder / CHECKSUMS).read_text(encoding="utf-8")
        listed = text.removesuffix("\n").split("\n")  # splitlines would take a damaged end of line for one
        wanted = {folder / line[66:]: line[:64] for line in listed}
        if not wanted or any(line[64:66] != "  " for line in listed):
            return f"{CHECKSUMS} is not a list of checksums"
        for path, digest in zip(wanted, _digests(wanted), strict=True):
            if digest != wanted[path]:
                return f"{path.name} has changed since it was saved"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError) as error:
        return str(error)
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _digests(files: Iterable[Path]) -> list[str]:
    """The SHA-256 of files; hashing lets other threads compute."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_digest, files))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
