"""Small tar shards, and a server that gives them."""

from __future__ import annotations

import io
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from webdataset import TarWriter


def picture(number: int) -> bytes:
    """A PNG that is the same for the same number."""
    pixels = np.random.default_rng(number).integers(0, 256, (9, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_shard(path: Path, numbers: range, **files: Any) -> Path:
    """A sample for each number, with an image, and `files` {suffix: content of a number}; by default JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files = files or {"json": lambda n: {"id": f"{n}.png", "captions": [f"a dog {n}", "it runs"]}}
    with path.open("wb") as file, TarWriter(file, mtime=0, encoder=False) as tar:
        for n in numbers:
            texts = {suffix.replace("_", "."): _encoded(of(n)) for suffix, of in files.items()}
            tar.write({"__key__": f"{n:06d}", "png": picture(n)} | texts)
    return path


def _encoded(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode()


class ShardServer:
    """Serves a folder at `url` and counts requests {path: number} and the bytes of parts.

    Without `ranges` it gives whole files only. The first `failures` requests of each part are answered by 503, or by
    less than what was asked for if `cut`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.ranges, self.failures, self.cut, self.etag = folder, True, 0, False, '"1"'
        self.requests: Counter[str] = Counter()
        self.parts: list[tuple[str, int, int]] = []
        self._failed: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        name = handler.path.partition("?")[0].lstrip("/")
        asked = handler.headers.get("Range") or ""
        with self._lock:
            self.requests[name] += 1
            self._failed[name, asked] += 1
            fails = self._failed[name, asked] <= self.failures
        path = self.folder / name
        if not path.is_file():
            handler.send_error(404)
            return
        content = path.read_bytes()
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", asked) if self.ranges else None
        if fails and not self.cut:
            handler.send_error(503)
            return
        handler.send_response(206 if part else 200)
        handler.send_header("ETag", self.etag)
        if part:
            start, end = int(part[1]), int(part[2]) + 1
            handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
            content = content[start:end]
            with self._lock:
                self.parts.append((name, start, end))
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2] if fails else content)


@contextmanager
def serving(folder: Path) -> Iterator[ShardServer]:
    """A server of `folder` on this machine."""
    shards = ShardServer(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shards.answer(self)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    shards.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield shards
    finally:
        server.shutdown()
        server.server_close()
