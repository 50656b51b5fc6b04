"""Downloads that survive cut connections, are checked, unpacked, and done only once."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from easycap.data.downloads import Archive
from easycap.errors import UserError
from easycap.utils.processes import lock
from easycap.utils.text import count_text

_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds without a byte
_MBIT_PER_SECOND = 100

Advance = Callable[[str, int, int], None]  # name of the archive, bytes so far, bytes in all


def missing(archives: Sequence[Archive], root: Path) -> list[Archive]:
    """Return the archives whose content is not yet whole below `root`."""
    return [archive for archive in archives if not _is_unpacked(archive, root)]


def plan(archives: Sequence[Archive], root: Path) -> str:
    """Return what would be fetched in words: files, disk, time; raises `UserError` if the disk is too small."""
    size = sum(archive.size for archive in archives)
    rest = size - sum(_size(_part(archive, root)) + _size(root / archive.name) for archive in archives)
    # The largest archives hold JPEGs, which zip makes no smaller; each is removed once it is unpacked.
    needed = rest + size
    there = shutil.disk_usage(_existing(root)).free
    lines = [f"  {archive.name:<30}{archive.size / 1e6:8,.0f} MB  {archive.url}" for archive in archives]
    minutes = max(1, round(rest * 8 / _MBIT_PER_SECOND / 1e6 / 60))
    lines += [
        f"to {root}: {rest / 1e9:.2f} GB to fetch, about {count_text(minutes, 'minute')} at {_MBIT_PER_SECOND} Mbit/s; "
        f"{needed / 1e9:.1f} GB of disk while unpacking, {there / 1e9:.1f} GB are free"
    ]
    if needed > there:
        raise UserError(f"{root} has {there / 1e9:.1f} GB free and {needed / 1e9:.1f} GB are needed")
    return "\n".join(lines)


def get(archives: Sequence[Archive], root: Path, *, advance: Advance, patience: float = 60) -> None:
    """Fetch, check and unpack `archives` below `root`, four at a time; what is there already is left alone.

    A connection that is cut is taken up where it ended, where the server can do that, until `patience` seconds have
    brought no new byte. An archive that lies in `root` is checked and unpacked, not fetched. Raises `UserError` for a
    place that cannot be reached, wrong bytes, a damaged archive, or another `get` at work in `root`.
    """
    root.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()

    def step(name: str, have: int, total: int) -> None:
        if stop.is_set():
            raise _Unreachable("stopped")
        advance(name, have, total)

    with lock(root / ".get.lock", wait=False) as held, ThreadPoolExecutor(4) as pool:
        if held is None:
            raise UserError(f"another `easycap data get` is running in {root}")
        jobs = [pool.submit(_get_one, one, root, step, patience) for one in missing(archives, root)]
        try:
            errors = [error for job in jobs if (error := job.exception()) is not None]
        finally:
            stop.set()  # after Ctrl-C
    unreachable = [error for error in errors if isinstance(error, _Unreachable)]
    if unreachable:
        left = missing(archives, root)
        raise UserError(
            f"{unreachable[0]}: run this again to continue, or place {', '.join(a.name for a in left)} in {root} "
            f"by other means ({', '.join(a.url for a in left)}) and run this again to check and unpack"
        )
    if errors:
        raise errors[0]


class _Unreachable(UserError):
    """A server that gives nothing."""


def _get_one(archive: Archive, root: Path, advance: Advance, patience: float) -> None:
    file = root / archive.name
    if file.exists():
        _check(archive, file, "another file of that name is there: replace or remove it")
    else:
        part = _part(archive, root)
        _download(archive, part, advance, patience)
        try:
            _check(archive, part, "removed: run this again")
        except ValueError:
            part.unlink()
            raise
        part.replace(file)
    _unpack(archive, file, root)
    file.unlink()


def _download(archive: Archive, part: Path, advance: Advance, patience: float) -> None:
    """Fill `part` from where it ends, again and again until it is whole."""
    furthest, since, pause = _size(part), time.monotonic(), 0.1
    while True:
        try:
            whole = False
            for have, total in _stream(archive.url, part):
                if have > archive.size:
                    part.unlink()
                    raise UserError(
                        f"{archive.url} sends more than the {archive.size:,} bytes of the expected file: stopped and "
                        "removed; try again later"
                    )
                advance(archive.name, have, total or archive.size)
                if have > furthest:
                    furthest, since, pause = have, time.monotonic(), 0.1
                whole = have == total or total is None
            if whole:
                return
            reason = "the connection ends early"
        except urllib.error.HTTPError as error:
            if error.code in (403, 404, 410):
                raise _Unreachable(f"{archive.url} no longer exists (HTTP {error.code})") from None
            reason = f"HTTP {error.code}"
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        if time.monotonic() - since > patience:
            raise _Unreachable(f"{archive.url} cannot be fetched ({reason})")
        time.sleep(pause)
        pause = min(2 * pause, 10)


def _stream(url: str, part: Path) -> Iterator[tuple[int, int | None]]:
    """Append to `part` what is missing of `url`; yield (bytes so far, bytes in all if known)."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
            yield have, have
        else:  # there is more of it here than on the server: not the same file
            part.unlink()
        return
    with response, part.open("ab") as file:
        if have and (response.status != 206 or not _starts_at(response, have)):
            file.truncate(0)  # a server that cannot resume sends everything again
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        yield have, total
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            have += len(chunk)
            yield have, total


def _starts_at(response: http.client.HTTPResponse, position: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {position}-")


def _check(archive: Archive, file: Path, advice: str) -> None:
    """Raise `UserError` unless the file has the right bytes."""
    kind, _, wanted = archive.checksum.partition(":")
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, kind).hexdigest()
    if found != wanted:
        raise UserError(
            f"{file} has the wrong bytes ({_size(file)} of them, {kind} {found[:12]}... instead of {wanted[:12]}... of "
            f"{archive.url}); {advice}"
        )


def _unpack(archive: Archive, file: Path, root: Path) -> None:
    try:
        with zipfile.ZipFile(file) as opened:
            for member in opened.infolist():
                target = root / member.filename
                hidden = member.filename.startswith("__MACOSX")
                if hidden or (target.is_file() and target.stat().st_size == member.file_size):
                    continue  # unpacked before an interruption
                opened.extract(member, root)  # compares the CRC
    except (zipfile.BadZipFile, EOFError) as error:
        file.unlink()
        raise UserError(
            f"{archive.name} is a damaged archive ({error}) and was removed: run this again"
        ) from None
    if not _holds_all(archive, root):
        raise UserError(f"{archive.name} does not hold what it should: {archive.unpacks_to}")


def _is_unpacked(archive: Archive, root: Path) -> bool:
    begun = (root / archive.name).exists() or _part(archive, root).exists()
    return not begun and _holds_all(archive, root)


def _holds_all(archive: Archive, root: Path) -> bool:
    for name, count in archive.unpacks_to.items():
        path = root / name
        if (len(os.listdir(path)) if path.is_dir() else int(path.is_file())) < count:
            return False
    return True


def _part(archive: Archive, root: Path) -> Path:
    return root / f"{archive.name}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
