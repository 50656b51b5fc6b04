"""The HTTP server of the page. By default it answers only this machine; it stores nothing.

GET /                the page, with /style.css, /demo.css, /demo.js
GET /api/runs        {"runs", "decodings", "limits"}
POST /api/caption    an image file; one JSON object per line: {"photo"}, then for each run {"run", ...}
"""

from __future__ import annotations

import errno
import ipaddress
import json
import socket
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from easycap.data.images import BadImage
from easycap.demo.models import DemoModel, decodings
from easycap.demo.photos import Limits, read_photo
from easycap.errors import UserError

_IN_PROGRESS = 8  # uploads in memory: one is read by the models, the others wait
_PORTS_TRIED = 100
_FILES = {
    "/": ("easycap.demo", "page/demo.html", "text/html"),
    "/demo.css": ("easycap.demo", "page/demo.css", "text/css"),
    "/demo.js": ("easycap.demo", "page/demo.js", "text/javascript"),
    "/style.css": ("easycap.report", "templates/style.css", "text/css"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# Pages of other sites cannot send it without asking first, which is not answered.
_HEADER_OF_PAGE = "X-Easycap-Demo"


class DemoServer(ThreadingHTTPServer):
    """Serves the page of some models on `host`, at `port` or the next that is free.

    Photos are captioned one at a time: the models share the processor. Raises `UserError` if no port is free or the
    address is not one of this machine.
    """

    daemon_threads = True

    def __init__(self, models: Sequence[DemoModel], *, host: str, port: int, limits: Limits) -> None:
        self.models, self.host, self.limits = models, host, limits
        self.turn = threading.Lock()
        self.places = threading.BoundedSemaphore(_IN_PROGRESS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        for tried in range(port, min(port + _PORTS_TRIED, 65536)):
            try:
                super().__init__((host, tried), DemoHandler)
                return
            except socket.gaierror as error:
                raise UserError(f"cannot listen on host {host}: {error.strerror}") from None
            except PermissionError:
                raise UserError(f"port {tried} needs an administrator: choose one above 1023") from None
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise UserError(f"cannot listen on host {host}: {error.strerror}") from None
        raise UserError(f"no port from {port} to {tried} is free")

    @property
    def address(self) -> str:
        """The address of the page for a browser on this machine."""
        host = "127.0.0.1" if self.host in ("", "0.0.0.0") else "::1" if self.host == "::" else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}"

    @cached_property
    def description(self) -> dict[str, Any]:
        """What the page needs to know at its start."""
        runs = [model.describe() for model in self.models]
        return {"runs": runs, "decodings": decodings(), "limits": self.limits._asdict()}

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server.

        A name that is not ours may be a foreign site's that now leads here (DNS rebinding).
        """
        name = urlsplit(f"//{host}").hostname or ""
        if name in ("localhost", self.host):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            own = socket.gethostname().lower()
            return not is_loopback(self.host) and name in (own, f"{own}.local")
        return address.is_loopback or not is_loopback(self.host)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away; print the traceback of anything else."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class DemoHandler(BaseHTTPRequestHandler):
    """Answers one request; HTTP/1.0, so that an answer ends where the connection does."""

    server: DemoServer
    timeout = 60  # s without a byte from the browser, or taken by it
    server_version, sys_version = "easycap", ""

    def do_GET(self) -> None:
        """Send the page, one of its files, or what it asks for at its start."""
        path = urlsplit(self.path).path
        if not self._allowed():
            return
        if path == "/api/runs":
            self._send(200, json.dumps(self.server.description).encode(), "application/json")
        elif path in _FILES:
            package, name, kind = _FILES[path]
            self._send(200, files(package).joinpath(name).read_bytes(), f"{kind}; charset=utf-8")
        else:
            self._refuse(404, f"there is no {path}")

    def do_POST(self) -> None:
        """Caption the photo in the body with every run; its lines are sent as they are made."""
        if not self._allowed():
            return
        url = urlsplit(self.path)
        if url.path != "/api/caption":
            self._refuse(404, f"there is no {url.path}")
        elif self.headers.get(_HEADER_OF_PAGE) is None:
            self._refuse(403, f"a request needs the header {_HEADER_OF_PAGE}")
        elif not self.server.places.acquire(blocking=False):
            self._refuse(503, f"{_IN_PROGRESS} photos are already waiting: try again later")
        else:
            try:
                self._caption(dict(parse_qsl(url.query, max_num_fields=50)))
            finally:
                self.server.places.release()

    def _caption(self, fields: Mapping[str, str]) -> None:
        content = self._body()
        if content is None:
            return
        self._head(200, "application/x-ndjson")
        with self.server.turn:
            for line in _lines(self.server.models, content, fields, self.server.limits):
                self.wfile.write(json.dumps(line).encode() + b"\n")  # raises if the browser has gone

    def _body(self) -> bytes | None:
        """The file that is sent; None if it has been refused."""
        length, most = self.headers.get("Content-Length", ""), self.server.limits.bytes
        if not length.isdecimal():
            self._refuse(411, "a request needs the header Content-Length")
        elif int(length) > most:
            self._refuse(413, f"the file has {int(length) / 1e6:.1f} MB; at most {most / 1e6:g} MB are read")
        else:
            content = self.rfile.read(int(length))
            if len(content) == int(length):
                return content
        return None

    def _allowed(self) -> bool:
        """Whether the request is for this server, and of no other site's page; if not, it has been refused."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if not self.server.knows(host):
            self._refuse(403, f"{host!r} is not this server's name; open {self.server.address}")
        elif origin is not None and urlsplit(origin).netloc != host:
            self._refuse(403, "requests from other sites are rejected")
        else:
            return True
        return False

    def _refuse(self, status: int, sentence: str) -> None:
        self._send(status, json.dumps({"error": sentence}).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self._head(status, kind, {"Content-Length": str(len(content))})
        self.wfile.write(content)

    def _head(self, status: int, kind: str, further: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Type": kind} | _HEADERS | dict(further or {})).items():
            self.send_header(key, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the addresses have the texts that were typed."""


def _lines(
    models: Sequence[DemoModel], content: bytes, fields: Mapping[str, str], limits: Limits
) -> Iterator[dict[str, Any]]:
    """Yield the photo as it is shown, then the answer of each model; or why there is none."""
    try:
        photo = read_photo(content, limits)
        yield {"photo": photo.data_uri(), "size": photo.preview.size}
    except Exception as error:
        yield {"error": _sentence(error)}
        return
    for number, model in enumerate(models):
        try:
            yield {"run": number} | model.answer(photo, fields)
        except Exception as error:
            yield {"run": number, "error": _sentence(error)}


def _sentence(error: Exception) -> str:
    if isinstance(error, BadImage):
        return f"the file {error.what}"
    if isinstance(error, UserError):
        return str(error)
    traceback.print_exception(error)
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}"
