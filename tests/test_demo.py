"""`easycap demo`: what the server answers and refuses; tests/test_demo_page.py looks at the page."""

from __future__ import annotations

import http.client
import io
import json
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from helpers import whole_runs
from helpers.waiting import wait_for
from PIL import Image

import easycap
from easycap.cli import main
from easycap.commands import demo as command
from easycap.demo.models import DemoModel, named
from easycap.demo.photos import Limits, Photo
from easycap.demo.server import DemoServer
from easycap.predict import Captioner

LIMITS = Limits(bytes=200_000, pixels=100_000)
ATTENTION = [*whole_runs.RECURRENT["updown"], "decoder=updown", "decoder.max_length=8", "image_tokens=grid"]


class FakeModel:
    """Answers with the fields it gets, once `go` is set; `most` is how many answered at the same time."""

    def __init__(self) -> None:
        self.go, self.now, self.most = threading.Event(), 0, 0
        self.go.set()

    def describe(self) -> dict[str, Any]:
        return {"name": "fake"}

    def answer(self, photo: Photo, fields: Mapping[str, str]) -> dict[str, Any]:
        self.now += 1
        self.most = max(self.most, self.now)
        assert self.go.wait(60)
        self.now -= 1
        return {"fields": dict(fields), "size": photo.preview.size}


def serving(models: Any, **settings: Any) -> Iterator[DemoServer]:
    with DemoServer(models, **{"host": "127.0.0.1", "port": 0, "limits": LIMITS} | settings) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def fake() -> FakeModel:
    return FakeModel()


@pytest.fixture
def server(fake: FakeModel) -> Iterator[DemoServer]:
    yield from serving([fake])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> dict[str, Path]:
    """A run that attends to a grid, one that reads drafts, and a tag model."""
    folder = tmp_path_factory.mktemp("demo")
    dropped = ("image_tokens.", "decoder.")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EASYCAP_CACHE", str(scenes_cache))
        tiny = [word for word in whole_runs.TINY if not word.startswith(dropped)]
        words = [*tiny, *ATTENTION, "trainer.max_steps=2", f"hydra.run.dir={folder / 'attention'}"]
        assert main(["train", *words]) == 0
        whole_runs.run(folder / "drafts", "draft=own", "trainer.max_steps=2")
        whole_runs.run(folder / "tags", "task=tags", "tagger=cnn", "trainer.max_steps=2")
    return {name: folder / name for name in ("attention", "drafts", "tags")}


@pytest.fixture(scope="module")
def captioners(runs: dict[str, Path]) -> dict[str, Captioner]:
    return {name: easycap.load(run, device="cpu") for name, run in runs.items()}


@pytest.fixture(scope="module")
def real(captioners: dict[str, Captioner]) -> Iterator[DemoServer]:
    yield from serving([DemoModel(name, one) for name, one in captioners.items()])


@pytest.fixture(scope="module")
def photo(runs: dict[str, Path]) -> bytes:
    return sorted((runs["attention"] / "samples" / "images").glob("*.png"))[0].read_bytes()


def ask(
    server: DemoServer,
    content: bytes | None = None,
    path: str = "/api/caption",
    headers: Mapping[str, str | None] | None = None,
    **fields: str,
) -> tuple[int, list[dict[str, Any]]]:
    """POST a file as the page does, or GET without one: the status, and the lines of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    given = {"X-Easycap-Demo": "1"} | dict(headers or {})
    sent = {key: value for key, value in given.items() if value is not None}
    query = f"{path}?{urlencode(fields)}" if fields else path
    connection.request("GET" if content is None else "POST", query, content, sent)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, [json.loads(line) for line in text.splitlines()]


def png(width: int = 8, height: int = 6, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, kind)
    return buffer.getvalue()


def test_the_page_needs_no_other_server(server: DemoServer) -> None:
    for path in ("/", "/style.css", "/demo.css", "/demo.js"):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy
        assert not re.findall(r"https?://|@import|\burl\(", response.read().decode())
    assert ask(server, path="/etc/passwd")[0] == ask(server, path="/../cli.py")[0] == 404
    assert ask(server, path="/api/runs")[1][0]["limits"] == {"bytes": 200_000, "pixels": 100_000}


def test_a_photo_is_answered_as_it_is_shown(server: DemoServer) -> None:
    status, lines = ask(server, png(), draft="a dög")
    assert status == 200
    assert lines[0]["photo"].startswith("data:image/jpeg;base64,") and lines[0]["size"] == [8, 6]
    assert lines[1] == {"run": 0, "fields": {"draft": "a dög"}, "size": [8, 6]}
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(turned, "JPEG", exif=exif)
    assert ask(server, turned.getvalue())[1][0]["size"] == [6, 8], "upright, as the model reads it"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "192.0.2.7", "", "localhost.evil.example"]
)
def test_another_name_for_this_machine_is_refused(server: DemoServer, host: str) -> None:
    """Else a site could rebind its name to 127.0.0.1, and read what the page reads."""
    status, lines = ask(server, png(), headers={"Host": host})
    assert status == 403 and "is not this server's name" in lines[0]["error"]
    assert ask(server, path="/api/runs", headers={"Host": host})[0] == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:99", "127.0.0.1:99", "[::1]:99"])
def test_names_of_this_machine_are_answered(server: DemoServer, host: str) -> None:
    assert ask(server, png(), headers={"Host": host})[0] == 200


def test_pages_of_other_sites_get_nothing(server: DemoServer) -> None:
    assert ask(server, png(), headers={"Origin": "http://evil.example"})[0] == 403
    assert ask(server, png(), headers={"Origin": "null"})[0] == 403
    assert ask(server, png(), headers={"X-Easycap-Demo": None})[0] == 403


def test_what_is_too_large_is_refused_before_it_is_read(server: DemoServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    connection.putrequest("POST", "/api/caption")
    connection.putheader("X-Easycap-Demo", "1")
    connection.putheader("Content-Length", "50000000000")
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read())["error"] == "the file has 50000.0 MB; at most 0.2 MB are read"
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    connection.putrequest("POST", "/api/caption")
    connection.putheader("X-Easycap-Demo", "1")
    connection.endheaders()
    assert connection.getresponse().status == 411


def test_a_small_file_of_many_pixels_is_not_decoded(
    server: DemoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = png(5000, 5000)
    assert len(bomb) < LIMITS.bytes

    def decoded(*_: Any) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("easycap.data.image_inputs.decoded", decoded)
    (line,) = ask(server, bomb)[1]
    assert line["error"] == "image has 5000 x 5000 pixels; at most 0.1 million are read: make it smaller"


def test_what_is_no_photo_is_refused_in_a_sentence(server: DemoServer) -> None:
    for content in (b"", b"GIF89a", b"some text", png(200, 200, "JPEG")[:700]):
        (line,) = ask(server, content)[1]
        assert line["error"].startswith("the file cannot be read as an image")
    (line,) = ask(server, png(kind="EPS"))[1]
    assert line["error"] == "the format EPS is not read here: save the image as JPEG or PNG"


def test_models_take_turns_and_a_ninth_photo_is_refused(server: DemoServer, fake: FakeModel) -> None:
    fake.go.clear()
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(ask(server, png())[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_for(lambda: server.places._value == 0)
    status, lines = ask(server, png())
    assert status == 503 and "8 photos are already waiting" in lines[0]["error"]
    fake.go.set()
    for thread in threads:
        thread.join()
    assert found == [200] * 8 and fake.most == 1
    wait_for(lambda: server.places._value == 8)
    assert ask(server, png())[0] == 200


def test_an_error_of_a_model_is_a_sentence(
    server: DemoServer, fake: FakeModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(*_: Any) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(fake, "answer", answer)
    assert ask(server, png())[1][1] == {"run": 0, "error": "unexpected RuntimeError: out of memory"}
    assert "Traceback" in capsys.readouterr().err


def test_answers_are_those_of_the_captioner(
    real: DemoServer, captioners: dict[str, Captioner], photo: bytes
) -> None:
    _, (shown, attention, drafts, tags) = ask(real, photo)
    for name, answer in (("attention", attention), ("drafts", drafts)):
        expected = captioners[name].caption(photo, details=True)
        assert answer["caption"] == expected.text == captioners[name].caption(photo)
        assert [token["text"] for token in answer["tokens"]] == expected.tokens
        words = "".join(
            (" " if token["space"] else "") + token["text"]
            for token in answer["tokens"]
            if token["text"] != "<eos>"
        )
        assert words == expected.text
        for token, likeliest in zip(answer["tokens"], expected.likeliest, strict=True):
            probabilities = [p for _, p in token["likeliest"]]
            assert np.allclose(probabilities, [np.exp(value) for _, value in likeliest], atol=1e-5)
            assert probabilities == sorted(probabilities, reverse=True) and sum(probabilities) <= 1.0001
            assert token["p"] <= probabilities[0]
    maps = np.array(attention["attention"]["maps"])
    assert maps.shape == captioners["attention"].caption(photo, details=True).attention.shape
    assert attention["attention"]["window"] == [0, 0, 1, 1] and shown["size"] == [32, 32]
    assert drafts["attention"] is None
    assert [tag for tag, _ in tags["tags"]] == list(captioners["tags"].tags(photo))[: len(tags["tags"])]


def test_a_draft_goes_to_the_run_that_reads_one(
    real: DemoServer, captioners: dict[str, Captioner], photo: bytes
) -> None:
    runs = ask(real, path="/api/runs")[1][0]["runs"]
    assert [run.get("reads") for run in runs] == [[], ["draft"], None]
    assert runs[0]["no_attention"] == "" and "does not attend" in runs[1]["no_attention"]
    _, (_, attention, drafts, _) = ask(real, photo, draft="a red boat zzz", rounds="1")
    expected = captioners["drafts"].caption(photo, draft="a red boat zzz", rounds=1, details=True)
    assert (drafts["caption"], attention["caption"]) == (
        expected.text,
        captioners["attention"].caption(photo),
    )
    assert drafts["log_probability"] == pytest.approx(expected.log_probability, abs=1e-3)
    assert "no words in this model's vocabulary" in ask(real, photo, draft="qqq")[1][2]["notices"][0]


def test_decoding_is_as_entered(real: DemoServer, captioners: dict[str, Captioner], photo: bytes) -> None:
    _, lines = ask(real, photo, decoding="beam", num_beams="3", length_penalty="0", max_length="")
    expected = captioners["attention"].caption(photo, decoding="beam", num_beams=3, length_penalty=0)
    assert lines[1]["caption"] == expected
    methods = ask(real, path="/api/runs")[1][0]["decodings"]
    assert methods["beam"]["num_beams"] == 5 and "num_samples" not in methods["sample"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"decoding": "beem"}, "decoding 'beem' does not exist"),
        ({"decoding": "beam", "num_beams": "0"}, "decoding.num_beams=0 must be at least 1"),
        (
            {"decoding": "beam", "num_beams": "21"},
            "num_beams=21 must be a whole number, on this page at most 20",
        ),
        ({"decoding": "beam", "num_beams": "3,seed=1"}, "num_beams=3,seed=1 is not a number"),
        ({"decoding": "greedy", "beams": "3"}, "decoding.beams does not exist"),
        ({"num_beams": "3"}, "num_beams=3 needs a decoding method: choose one"),
        ({"rounds": "11"}, "rounds=11 must be a whole number, on this page at most 10"),
        ({"draft": "a" * 2001}, "draft has 2,001 characters; at most 2,000 are read"),
    ],
)
def test_wrong_fields_are_refused_in_a_sentence(
    real: DemoServer, photo: bytes, fields: dict[str, str], sentence: str
) -> None:
    assert sentence in ask(real, photo, **fields)[1][2]["error"]


def test_nothing_is_kept(
    real: DemoServer, photo: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenes_cache: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(scenes_cache.rglob("*"))

    def opened(name: Any, flags: int, *_: Any) -> None:
        raise AssertionError(f"{name} was opened to be written")

    monkeypatch.setattr("tempfile._os.open", opened)
    assert "error" not in ask(real, photo, draft="a boat")[1][2]
    assert sorted(scenes_cache.rglob("*")) == before and not list(tmp_path.rglob("*"))


def test_a_busy_port_gives_way_to_the_next(fake: FakeModel, server: DemoServer) -> None:
    taken = server.server_address[1]
    with DemoServer([fake], host="127.0.0.1", port=taken, limits=LIMITS) as other:  # type: ignore[list-item]
        assert taken < other.server_address[1] < taken + 100
        assert other.address == f"http://127.0.0.1:{other.server_address[1]}"


def test_the_command_names_its_address_and_ends_quietly(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served: list[DemoServer] = []

    def until_interrupted(self: DemoServer) -> None:
        served.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(DemoServer, "serve_forever", until_interrupted)
    assert command.main([str(runs["attention"]), str(runs["tags"]), "--port", "0", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"demo: {served[0].address} (Ctrl-C ends it)\n" and not printed.err.strip()
    assert [model.name for model in served[0].models] == ["attention", "tags"]
    assert served[0].server_address[0] == "127.0.0.1"
    assert command.main([str(runs["tags"]), "--port", "0", "--host", "0.0.0.0", "--device", "cpu"]) == 0
    assert "there is no password" in capsys.readouterr().err
    assert served[1].knows("192.0.2.7:80") and not served[1].knows("evil.example")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "nowhere is not a folder"),
        ([""], "an argument is empty"),
        (["RUN", "--port", "70000"], "--port 70000 must be from 0 to 65535"),
        (["RUN", "--max-mb", "0"], "--max-mb and --max-megapixels must be above 0"),
    ],
)
def test_wrong_arguments(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", *words]) == 1
    assert sentence in capsys.readouterr().err


def test_runs_of_one_name_are_told_apart() -> None:
    assert named([Path("/a/one"), Path("/b/two")]) == ["one", "two"]
    assert named([Path("/a/run"), Path("/b/run")]) == ["a/run", "b/run"]
    assert named([Path("/a/run"), Path("/a/run")]) == ["run", "run"]
