"""Bytes of a file at an address: any part of it, again after a cut connection, or all of it in order."""

from __future__ import annotations

import http.client
import io
import time
import urllib.error
import urllib.request
from typing import NamedTuple

from easycap.errors import UserError

TIMEOUT = 60.0  # seconds without a byte
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds between attempts
_REFUSED = (400, 401, 403, 405, 416)  # a retry would not help
_PART = 16 << 20


class Unreachable(UserError):
    """A file that cannot be read over the network, or has changed."""


class NotThere(Unreachable):
    """An address at which the server has nothing."""


class RemoteFile(NamedTuple):
    """A file at an address: how many bytes it has, and a text that changes with its content ("" if unknown)."""

    url: str
    size: int
    version: str


def is_url(place: str) -> bool:
    """Return whether `place` is an address that can be read, not a path."""
    return place.startswith(("http://", "https://"))


def look_up(url: str) -> RemoteFile:
    """Return size and version of the file at `url`.

    Raises `NotThere`, or `Unreachable` if it cannot be read or if the server does not support range requests.
    """
    return _described(url, _asked(url, 0, 1))


def read_range(file: RemoteFile, start: int, end: int) -> bytes:
    """Return the bytes of a file from `start` to before `end`.

    A connection that is cut or refused is tried again, with pauses. Raises `Unreachable` after the last attempt, and
    at once if the file is no longer the one that was looked up.
    """
    response = _asked(file.url, start, end)
    found = _described(file.url, response)
    if found != file:
        raise Unreachable(
            f"{file.url} has changed since it was indexed ({file.size:,} bytes, {file.version or 'no ETag'}; now "
            f"{found.size:,} bytes, {found.version or 'no ETag'}): start the run again to index it anew"
        )
    return response.content


def read_all(url: str) -> bytes:
    """Return a small file; raises `NotThere` or `Unreachable`."""
    return _asked(url, None, None).content


class Reader(io.RawIOBase):
    """A file at an address as one to read and to seek in; it is fetched in parts of 16 MB."""

    def __init__(self, file: RemoteFile) -> None:
        self.file, self._position = file, 0
        self._begin, self._part = 0, b""  # the part fetched last, and where it begins

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position that is read next."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to another position; nothing is fetched yet."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.file.size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # of a raw stream
        """Fill `buffer` with the next bytes; return how many, 0 at the end."""
        at = self._position - self._begin
        if not 0 <= at < len(self._part):
            if self._position >= self.file.size:
                return 0
            self._begin, at = self._position, 0
            self._part = read_range(self.file, self._begin, min(self._begin + _PART, self.file.size))
        found = self._part[at : at + len(buffer)]
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)


class _Response(NamedTuple):
    headers: http.client.HTTPMessage
    content: bytes


def _asked(url: str, start: int | None, end: int | None) -> _Response:
    """The answer to a request for a part of a file, or for all of it."""
    for pause in (*PAUSES, None):
        try:
            return _ask(url, start, end)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (404, 410):
                raise NotThere(f"{url} does not exist (HTTP {error.code}): check the address") from None
            if error.code in _REFUSED:
                raise Unreachable(
                    f"{url} cannot be read (HTTP {error.code}): check the address and whether you may read it"
                ) from None
            reason = f"HTTP {error.code}"
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        except ValueError as error:  # not a valid address
            raise Unreachable(f"{url} cannot be read ({error}): check the address") from None
        if pause is None:
            raise Unreachable(
                f"{url} cannot be read ({reason}), tried {len(PAUSES) + 1} times: check the connection and try again"
            )
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _ask(url: str, start: int | None, end: int | None) -> _Response:
    headers = {} if start is None else {"Range": f"bytes={start}-{end - 1}"}  # type: ignore[operator]  # both or none
    headers["Accept-Encoding"] = "identity"
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if start is not None and response.status != 206:
            raise Unreachable(
                f"{url} is on a server that does not support range requests, which reading single images needs: use "
                "another server (object stores, nginx and Apache do), or download the shards and set data.root to "
                "their folder"
            )
        content = response.read()
        wanted = response.headers.get("Content-Length")
        if wanted is not None and len(content) != int(wanted):
            raise http.client.IncompleteRead(content, int(wanted) - len(content))
        return _Response(response.headers, content)


def _described(url: str, response: _Response) -> RemoteFile:
    size = response.headers.get("Content-Range", "").rpartition("/")[2]
    if not size.isdecimal():
        raise Unreachable(f"{url} is on a server that does not say how large the file is (Content-Range)")
    version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    return RemoteFile(url, int(size), version)
