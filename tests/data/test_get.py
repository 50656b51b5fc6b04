"""Downloads from a server on this machine that cuts connections, cannot go on, or sends wrong bytes."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from easycap.commands.data import main
from easycap.data import get as downloading
from easycap.data.downloads import COLLECTIONS, Archive
from easycap.data.get import get, missing, plan
from easycap.errors import UserError


class Server(ThreadingHTTPServer):
    """Serves `content` at every path; `cut` bytes at most per connection, Range only if `ranges`."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cut, self.ranges = content, len(content), True
        self.asked: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        start = int(wanted[len("bytes=") : -1]) if wanted and server.ranges else 0
        rest = server.content[start:]
        if start and not rest:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            last = len(server.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: server.cut])

    def log_message(self, *args: object) -> None:
        pass


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


NOISE = np.random.default_rng(0).bytes(300_000)
CONTENT = zipped({"photos/1.jpg": NOISE, "photos/2.jpg": b"x", "__MACOSX/junk": b"", "captions.json": b"{}"})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloading, "_CHUNK", 10_000)
    server = Server(CONTENT)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def archive(server: Server, content: bytes = CONTENT) -> Archive:
    checksum = "sha256:" + hashlib.sha256(content).hexdigest()
    url = f"http://127.0.0.1:{server.server_address[1]}/some/photos.zip"
    return Archive(url, len(content), checksum, {"photos": 2, "captions.json": 1})


def fetch(archive: Archive, root: Path, *, patience: float = 5) -> list[int]:
    """The bytes that were there, in the order they were told of."""
    seen: list[int] = []
    get([archive], root, advance=lambda name, have, total: seen.append(have), patience=patience)
    return seen


def test_an_archive_is_fetched_unpacked_and_not_fetched_again(server: Server, tmp_path: Path) -> None:
    one = archive(server)
    assert "0.00 GB to fetch" in plan([one], tmp_path / "new") and one.url in plan([one], tmp_path)
    assert fetch(one, tmp_path)[-1] == len(CONTENT)
    assert (tmp_path / "photos" / "1.jpg").read_bytes() == NOISE
    assert not list(tmp_path.glob("photos.zip*")) and not (tmp_path / "__MACOSX").exists()
    assert missing([one], tmp_path) == []
    fetch(one, tmp_path)
    assert len(server.asked) == 1


def test_a_cut_connection_is_taken_up_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.cut = 100_000
    seen = fetch(archive(server), tmp_path)
    assert server.asked == [None, "bytes=100000-", "bytes=200000-", "bytes=300000-"]
    assert seen == sorted(seen) and (tmp_path / "photos" / "1.jpg").read_bytes() == NOISE


def test_an_interrupted_download_goes_on_in_another_run(server: Server, tmp_path: Path) -> None:
    (tmp_path / "photos.zip.part").write_bytes(CONTENT[:250_000])
    fetch(archive(server), tmp_path)
    assert server.asked == ["bytes=250000-"]
    assert (tmp_path / "photos" / "1.jpg").read_bytes() == NOISE


def test_a_finished_part_needs_no_more_bytes(server: Server, tmp_path: Path) -> None:
    (tmp_path / "photos.zip.part").write_bytes(CONTENT)
    fetch(archive(server), tmp_path)
    assert (tmp_path / "photos" / "1.jpg").read_bytes() == NOISE


def test_a_server_that_cannot_go_on_is_asked_for_everything(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "photos.zip.part").write_bytes(b"z" * 250_000)
    fetch(archive(server), tmp_path)
    assert (tmp_path / "photos" / "1.jpg").read_bytes() == NOISE


def test_a_server_that_always_cuts_at_the_same_byte_is_given_up(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cut = False, 1000
    with pytest.raises(
        ValueError, match=r"the connection ends early\): run this again to continue, or place photos.zip"
    ):
        fetch(archive(server), tmp_path, patience=0.3)


def test_wrong_bytes_are_removed_and_reported(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(ValueError, match=r"photos.zip.part has the wrong bytes .* removed: run this again"):
        fetch(archive(server), tmp_path)
    assert not list(tmp_path.glob("photos*"))


def test_what_a_user_placed_is_unpacked_or_left_where_it_is(server: Server, tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"something else")
    with pytest.raises(ValueError, match="wrong bytes .* replace or remove it"):
        fetch(archive(server), tmp_path)
    assert (tmp_path / "photos.zip").exists()
    (tmp_path / "photos.zip").write_bytes(CONTENT)
    fetch(archive(server), tmp_path)
    assert server.asked == [] and (tmp_path / "captions.json").exists()


def test_damage_inside_the_archive_is_found(server: Server, tmp_path: Path) -> None:
    """A wrong CRC under a checksum that was taken of the damaged file."""
    at = CONTENT.index(NOISE[:50])
    server.content = CONTENT[:at] + b"\0" * 50 + CONTENT[at + 50 :]
    with pytest.raises(ValueError, match="photos.zip is a damaged archive"):
        fetch(archive(server, server.content), tmp_path)


def test_an_interrupted_unpacking_goes_on(server: Server, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(NOISE[:1000])
    (tmp_path / "photos.zip").write_bytes(CONTENT)
    fetch(archive(server), tmp_path)
    assert (tmp_path / "photos" / "1.jpg").read_bytes() == NOISE


def test_without_network_one_sentence_says_what_to_place_where(tmp_path: Path) -> None:
    one = Archive("http://127.0.0.1:9/a.zip", 10, "md5:0", {"a": 1})
    with pytest.raises(
        ValueError, match=rf"place a.zip in {tmp_path} by other means \(http://127.0.0.1:9/a.zip\)"
    ):
        fetch(one, tmp_path, patience=0.1)


def test_a_full_disk_is_known_before(tmp_path: Path) -> None:
    huge = Archive("http://127.0.0.1:9/a.zip", 10**18, "md5:0", {"a": 1})
    with pytest.raises(ValueError, match="GB are needed"):
        plan([huge], tmp_path)


def test_the_command_says_first_what_it_would_do(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["get", "flickr8k", str(tmp_path), "--dry-run"]) == 0
    assert "Flickr8k_Dataset.zip" in (printed := capsys.readouterr().out) and "1.12 GB to fetch" in printed
    assert "licence: non-commercial use" in printed and "JAIR 2013" in printed
    with pytest.raises(ValueError, match="did you mean 'flickr8k'"):
        main(["get", "flickr8", str(tmp_path)])
    with pytest.raises(ValueError, match="come on request"):
        main(["get", "flickr30k", str(tmp_path)])


def test_every_archive_has_a_whole_checksum() -> None:
    for one in (one for collection in COLLECTIONS.values() for one in collection):
        kind, _, digest = one.checksum.partition(":")
        assert len(digest) == 2 * hashlib.new(kind).digest_size and int(digest, 16)


def test_a_server_that_sends_more_than_the_file_has_is_stopped_there(server: Server, tmp_path: Path) -> None:
    known = archive(server)
    server.content = CONTENT + bytes(5_000_000)
    seen: list[int] = []
    with pytest.raises(UserError, match="sends more than the"):
        get([known], tmp_path, advance=lambda name, have, total: seen.append(have))
    assert max(seen) <= known.size
    assert not list(tmp_path.glob("photos*"))
