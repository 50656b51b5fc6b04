"""Megabytes that a server sends until a file is there, if it cuts connections: `easycap data get` or pooch.

    python experiments/speed/cut_download.py easycap
    python experiments/speed/cut_download.py pooch        in an environment with pooch

The file has 40 MB, and the server ends each of the first six connections after 30 MB. Nothing but this machine is
asked.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SIZE, CUT_AFTER, CUTS = 40_000_000, 30_000_000, 6
BODY = bytes(SIZE)


class Handler(BaseHTTPRequestHandler):
    requests = 0
    sent = 0

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{SIZE - 1}/{SIZE}")
        self.send_header("Content-Length", str(SIZE - start))
        self.end_headers()
        Handler.requests += 1
        part = BODY[start:][: CUT_AFTER if Handler.requests <= CUTS else SIZE]
        self.wfile.write(part)
        Handler.sent += len(part)
        self.close_connection = True


def fetch_with_pooch(url: str, checksum: str, folder: Path) -> None:
    import pooch

    base, _, name = url.rpartition("/")
    registry = {name: f"sha256:{checksum}"}
    pooch.create(folder, base_url=f"{base}/", registry=registry, retry_if_failed=4).fetch(name)


def fetch_with_easycap(url: str, checksum: str, folder: Path) -> None:
    from easycap.data.downloads import Archive
    from easycap.data.get import _check, _download

    archive, part = Archive(url, SIZE, f"sha256:{checksum}", {}), folder / "file.part"
    _download(archive, part, lambda name, have, total: None, 60)
    _check(archive, part, "")


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("library", choices=("easycap", "pooch"))
    fetch = fetch_with_pooch if arguments.parse_args().library == "pooch" else fetch_with_easycap
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        try:
            fetch(
                f"http://127.0.0.1:{server.server_port}/file.zip",
                hashlib.sha256(BODY).hexdigest(),
                Path(folder),
            )
            outcome = "the file is there"
        except Exception as error:
            outcome = f"no file: {type(error).__name__}"
    print(f"{outcome}; {Handler.sent / 1e6:.0f} MB sent in {Handler.requests} requests")


if __name__ == "__main__":
    main()
