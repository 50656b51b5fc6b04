"""Parts of shards at addresses, kept on this disk for a while: each is fetched once for all processes that read it."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO

from easycap.data.shards.byte_ranges import RemoteFile, Unreachable, read_range
from easycap.utils.paths import cache_dir
from easycap.utils.processes import lock

_OPEN = 64  # parts that a process keeps open
_LOCKS = 64
_KEEP = 0.8  # of the limit, when parts are removed


def read_block(file: RemoteFile, block: tuple[int, int], start: int, end: int, *, limit: int) -> bytes:
    """Return the bytes from `start` to before `end` of a file, which lie in its part `block` (start, end).

    The part is fetched unless it is kept. If kept parts take more than `limit` bytes, those that were opened longest
    ago are removed. Raises `Unreachable`, also for a full disk and for a limit that is too low.
    """
    opened = _opened(file, block, limit, os.getpid())
    return os.pread(opened.fileno(), end - start, start - block[0])


@lru_cache(maxsize=_OPEN)
def _opened(file: RemoteFile, block: tuple[int, int], limit: int, _process: int) -> IO[bytes]:
    folder = cache_dir() / "shards" / "blocks"
    name = hashlib.blake2b(f"{file.url}\0{file.size}\0{file.version}".encode(), digest_size=12).hexdigest()
    path = folder / f"{name}-{block[0]}-{block[1]}"
    for _ in range(3):  # between fetching and opening, another process may remove the part to make room
        with suppress(FileNotFoundError):
            opened = path.open("rb", buffering=0)
            if os.fstat(opened.fileno()).st_size == block[1] - block[0]:
                os.utime(path)
                return opened
            opened.close()  # the disk was full
        number = int(name[:4], 16) + block[0] // 4096
        with lock(folder / ".locks" / f"{number % _LOCKS}.lock"):
            if not path.is_file() or path.stat().st_size != block[1] - block[0]:
                _fetch(file, block, path)
                _make_room(folder, limit)
    raise Unreachable(f"{path} is removed as soon as it is fetched: raise data.cache_gb")


def _fetch(file: RemoteFile, block: tuple[int, int], path: Path) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_bytes(read_range(file, *block))
        new.replace(path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Unreachable(
            f"no space is left for parts of shards in {path.parent}: free some, lower data.cache_gb, or set "
            "EASYCAP_CACHE to a folder on another disk"
        ) from None
    finally:
        new.unlink(missing_ok=True)


def _make_room(folder: Path, limit: int) -> None:
    """Remove the parts that were opened longest ago, once all of them take more than `limit` bytes."""
    kept = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if entry.is_file():
                    status = entry.stat()
                    kept.append((status.st_mtime_ns, status.st_size, entry.path))
    total = sum(size for _, size, _ in kept)
    if total <= limit:
        return
    for _, size, path in sorted(kept)[:-1]:  # the last one was fetched just now
        with suppress(FileNotFoundError):
            os.unlink(path)
        total -= size
        if total <= _KEEP * limit:
            return
