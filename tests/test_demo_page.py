"""The page of `easycap demo` in a real browser; skipped where there is no Chromium."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.browser import CHROMIUM, Browser
from helpers.waiting import wait_for
from PIL import Image

from easycap.demo.photos import Limits, Photo
from easycap.demo.server import DemoServer
from easycap.registry import names

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

WORDS = ["a", "red", "boat", "<eos>"]


class FakeModel:
    """A captioner that reads drafts, and with `maps` looks at the lower right corner before its third word."""

    def __init__(self, name: str, *, maps: bool, reads: tuple[str, ...] = ()) -> None:
        self.name, self.maps, self.reads = name, maps, reads
        self.asked: list[dict[str, str]] = []

    def describe(self) -> dict[str, Any]:
        no_attention = "" if self.maps else "it does not attend"
        return {
            "name": self.name,
            "captions": True,
            "decoding": "greedy",
            "reads": self.reads,
            "rounds": 0,
        } | {"no_attention": no_attention}

    def answer(self, photo: Photo, fields: Mapping[str, str]) -> dict[str, Any]:
        self.asked.append(dict(fields))
        tokens = [
            {"text": word, "space": True, "p": 0.5, "likeliest": [[word, 0.5], ["<b>other</b>", 0.25]]}
            for word in WORDS
        ]
        corner = [[0.0, 0.0], [0.0, 1.0]]
        maps = {"maps": [[[0.25] * 2] * 2] * 2 + [corner, corner], "window": [0, 0, 1, 1]}
        found = {
            "caption": "a red boat",
            "log_probability": -2.77,
            "tokens": tokens,
            "notices": [],
            "seconds": 0.1,
        }
        return found | {"attention": maps if self.maps else None}


@pytest.fixture
def models() -> list[FakeModel]:
    return [FakeModel("first", maps=True), FakeModel("second", maps=False, reads=("draft",))]


@pytest.fixture
def server(models: Any) -> Iterator[DemoServer]:
    limits = Limits(bytes=100_000, pixels=1_000_000)
    with DemoServer(models, host="127.0.0.1", port=0, limits=limits) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (400, 300), "white").save(tmp_path / "white.png")
    return tmp_path / "white.png"


def opened(server: DemoServer, browser: Browser, *files: Path) -> None:
    browser.open(server.address)
    offered = len(names("decoding")) + 1  # and the run's own
    wait_for(lambda: browser.value("document.querySelector('#method')?.options.length") == offered)
    browser.choose_files("#files", *files)
    done = "document.querySelectorAll('.photo[aria-busy=false]').length"
    wait_for(lambda: browser.value(done) == len(files))


def text(browser: Browser, selector: str) -> str:
    return browser.value(f"document.querySelector({selector!r}).innerText")


# The brightness of the drawn attention at shares (x, y) of the photo: red + green.
HEAT = """(([x, y]) => { const canvas = document.querySelector('canvas');
  const pixel = canvas.getContext('2d').getImageData(x * canvas.width, y * canvas.height, 1, 1).data;
  return pixel[0] + pixel[1]; })"""


def test_words_show_attention_and_what_was_expected(
    server: DemoServer, photo: Path, tmp_path: Path, models: list[FakeModel]
) -> None:
    with Browser(tmp_path / "profile") as browser:
        opened(server, browser, photo)
        assert text(browser, "[data-run='0'] .words") == "a red boat end"
        browser.point_at("[data-run='0'] .word:nth-of-type(3)")
        wait_for(lambda: not browser.value("document.querySelector('canvas').hidden"))
        assert browser.value(f"{HEAT}([0.9, 0.9])") > browser.value(f"{HEAT}([0.1, 0.1])") + 200
        rows = [row for row in text(browser, "[data-run='0'] .place").split("\n") if row]
        assert rows == ["next after “a red”", "boat", "50.0%", "<b>other</b>", "25.0%"]
        browser.point_at("[data-run='1'] .word:nth-of-type(1)")
        wait_for(lambda: text(browser, "[data-run='1'] .place").startswith("first word"))
        assert browser.value("document.querySelector('canvas').hidden"), "this run has no attention"
        assert text(browser, "[data-run='0'] .place").startswith("next after"), "beside it"
        browser.value("document.querySelector('input[name=draft]').value = 'a boat'")
        browser.value("document.querySelector('#method').value = 'beam'")
        browser.value("document.querySelector('#method').dispatchEvent(new Event('change'))")
        browser.value("document.querySelector('input[name=num_beams]').value = '3'")
        browser.value("document.querySelector('#again button').click()")
        wait_for(lambda: len(models[1].asked) == 2)
        assert models[1].asked == [{}, {"draft": "a boat", "decoding": "beam", "num_beams": "3"}]
        assert {url.split("?")[0] for url in browser.requests()} == {
            f"{server.address}/{path}"
            for path in ("", "style.css", "demo.css", "demo.js", "api/runs", "api/caption")
        }
        assert not browser.complaints()


def test_the_keyboard_is_enough(server: DemoServer, photo: Path, tmp_path: Path) -> None:
    with Browser(tmp_path / "profile") as browser:
        opened(server, browser, photo)

        def focused() -> str:
            return browser.value(
                "document.activeElement.closest('.answer')?.dataset.run + document.activeElement.innerText"
            )

        browser.value("document.querySelector('#again button').focus()")
        for _ in range(2):  # past "remove"
            browser.press("Tab")
        assert focused() == "0a"
        browser.press("ArrowRight")
        browser.press("ArrowRight")
        assert focused() == "0boat" and not browser.value("document.querySelector('canvas').hidden")
        browser.press("ArrowDown")
        assert focused() == "1boat"
        browser.press("ArrowUp")
        browser.press("ArrowLeft")
        assert focused() == "0red"
        browser.press("Tab")
        assert focused() == "1boat", "one stop of the tab key for each caption"
        browser.press("Escape")
        assert browser.value("document.querySelector('canvas').hidden")


def test_a_phone_shows_it_without_scrolling_sideways(server: DemoServer, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("not an image")
    (tmp_path / "large.png").write_bytes(b"0" * 100_001)
    with Browser(tmp_path / "profile", width=390, height=844, dark=True) as browser:
        opened(server, browser, photo, tmp_path / "notes.png", tmp_path / "large.png")
        browser.value("document.querySelector('#decoding').open = true")
        browser.value("document.querySelector('.word').click()")
        assert browser.value("document.documentElement.scrollWidth") == 390
        assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
        wrong = browser.value("[...document.querySelectorAll('.wrong')].map((one) => one.innerText)")
        assert wrong == [
            "notes.png: the file cannot be read as an image (not of a known format).",
            "large.png: the file has 0.1 MB; at most 0.1 MB are read.",
        ]
        browser.value("document.querySelectorAll('.remove')[1].click()")
        assert browser.value("document.querySelectorAll('.photo').length") == 2
