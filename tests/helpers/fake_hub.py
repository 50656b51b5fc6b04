"""A server on this machine that answers as the Hugging Face hub does to who reads a data set, or reads or uploads a
model.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c" * 40


class FakeHub(ThreadingHTTPServer):
    """Serves `files` {"owner/name": {path: content}}; `asked` are the requests: method, path, range.

    Uploads of models, whose token must be `token`, are added to `files`: a file of weights goes through LFS. What was
    said of them is in `commits` (name, message) and `created`. Who reads one of `gated` is refused.
    """

    daemon_threads = True

    def __init__(self, files: Mapping[str, Mapping[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = {name: dict(its) for name, its in files.items()}
        self.asked: list[tuple[str, str, str | None]] = []
        self.token = "hf_of_the_test"
        self.gated: set[str] = set()
        self.created: list[dict[str, Any]] = []
        self.commits: list[tuple[str, str]] = []
        self.stored: dict[str, bytes] = {}  # by LFS id

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def sent(self, ending: str) -> list[str | None]:
        """The ranges that were asked of files whose path ends so; None for a whole file."""
        return [part for method, path, part in self.asked if method == "GET" and path.endswith(ending)]


@contextmanager
def serving(files: Mapping[str, Mapping[str, bytes]]) -> Iterator[FakeHub]:
    """A hub with these files, until the end of the block."""
    server = FakeHub(files)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())

    def _answer(self, body: str = "") -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path, self.headers.get("Range")))
        parts = path.strip("/").split("/")
        if self.command == "POST" and (uploads := self._upload_step(parts)) is not None:
            self._upload(uploads, body)
        elif parts[2:3] == ["resolve"]:
            self._file("/".join(parts[:2]), "/".join(parts[4:]))
        elif parts[:2] == ["api", "models"] and len(parts) >= 4:
            self._api("/".join(parts[2:4]), parts[4:], body)
        elif parts[0] == "datasets" and parts[3:4] == ["resolve"]:
            self._file("/".join(parts[1:3]), "/".join(parts[5:]))
        elif parts[:2] == ["api", "datasets"] and len(parts) >= 4:
            self._api("/".join(parts[2:4]), parts[4:], body)
        else:
            self._missing("EntryNotFound")

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == f"/stored/{hashlib.sha256(content).hexdigest()}"
        self.server.stored[self.path.rpartition("/")[2]] = content
        self._json({})

    @staticmethod
    def _upload_step(parts: list[str]) -> tuple[str, str] | None:
        """Which step of an upload a path is, and of which model."""
        if parts in (["api", "repos", "create"], ["api", "validate-yaml"]):
            return parts[-1], ""
        if parts[:2] == ["api", "models"] and parts[4:5] in (["preupload"], ["commit"]):
            return parts[4], "/".join(parts[2:4])
        return ("lfs", "/".join(parts[:2]).removesuffix(".git")) if parts[-1] == "batch" else None

    def _upload(self, step_of: tuple[str, str], body: str) -> None:
        step, name = step_of
        server = self.server
        if self.headers.get("Authorization") != f"Bearer {server.token}":
            self._send(401, b'{"error": "Invalid username or password."}', {})
        elif step == "commit":
            self._commit(name, [json.loads(line) for line in body.splitlines()])
        elif step == "create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            server.created.append(asked)
            server.files.setdefault(name, {})
            self._json({"url": f"{server.url}/{name}"})
        elif step == "preupload":
            modes = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]
            self._json({"files": modes})
        elif step == "lfs":
            found = [
                one | {"actions": {"upload": {"href": f"{server.url}/stored/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": found})
        else:
            self._json({"errors": [], "warnings": []})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = self.server.files[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.server.commits.append((name, value["summary"]))
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile"
                files[value["path"]] = self.server.stored[value["oid"]]
        self._json({"commitUrl": f"{self.server.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def _api(self, name: str, rest: list[str], body: str) -> None:
        files = self.server.files.get(name)
        if files is None:
            self._missing("RepoNotFound")
        elif rest[:1] == ["revision"] and rest[1] not in ("main", COMMIT):
            self._missing("RevisionNotFound")
        elif not rest or rest[0] == "revision":
            siblings = [{"rfilename": path} for path in files]
            self._json(
                {"_id": "1", "id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            )
        elif rest[0] == "tree":
            folder = "/".join(rest[2:])
            self._json([one for one in _entries(files) if one["path"].startswith(folder and f"{folder}/")])
        elif rest[0] == "paths-info":
            wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
            self._json([one for one in _entries(files) if one["path"] in wanted])
        else:
            self._missing("EntryNotFound")

    def _file(self, name: str, path: str) -> None:
        if name in self.server.gated:
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
            return
        content = self.server.files.get(name, {}).get(path)
        if content is None:
            self._missing("EntryNotFound" if name in self.server.files else "RepoNotFound")
            return
        size, wanted = len(content), self.headers.get("Range")
        headers = {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else size, size)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            content = content[start:stop]
        self._send(206 if wanted else 200, content, headers)

    def _json(self, answer: Any) -> None:
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _missing(self, code: str) -> None:
        self._send(404, b"", {"X-Error-Code": code, "X-Repo-Commit": COMMIT})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _entries(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Files and folders as the hub lists them."""
    folders = {"/".join(path.split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)}
    found = [{"type": "directory", "path": one, "oid": "0" * 40, "size": 0} for one in sorted(folders)]
    return found + [
        {"type": "file", "path": path, "oid": _oid(content), "size": len(content)}
        for path, content in files.items()
    ]
