"""The report and the comparison in a real browser; skipped where there is no Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.browser import CHROMIUM, Browser
from helpers.fabricated_sweep import make_sweep
from helpers.waiting import wait_for

from easycap.commands.compare import main as compare
from easycap.report import thumbnails
from easycap.report.run_page import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The comparison of twelve runs, of which one has a report."""
    sweep = make_sweep(tmp_path_factory.mktemp("pages") / "a sweep #1", seeds=(1, 2, 3), pictures=2)
    write_report(sweep / "split-5-s2")
    assert compare([str(sweep)]) == 0
    return sweep / "compare.html"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def browser(tab: Browser, page: Path) -> Browser:
    opened(tab, page)
    return tab


def opened(browser: Browser, page: Path) -> None:
    browser.open("about:blank")
    browser.open(page.as_uri())
    wait_for(lambda: browser.value("document.querySelector('#scatter svg') !== null"))


def seen(browser: Browser, selector: str) -> None:
    """Scroll a picture of 64 pixels into view, whereupon it is loaded."""
    picture = f"document.querySelector({selector!r})"
    wait_for(lambda: browser.value(f"{picture} !== null"))
    browser.value(f"{picture}.scrollIntoView()")
    wait_for(lambda: browser.value(f"{picture}.naturalWidth") == 64, seconds=20)


def shown(browser: Browser) -> list[int]:
    """The numbers of the rows that the table shows."""
    return browser.value(
        "[...document.querySelectorAll('.runs tbody tr:not([hidden])')].map(r => +r.dataset.run)"
    )


def marked(browser: Browser) -> list[int]:
    """The numbers of the marked rows, which the scatter has to mark too."""
    rows = browser.value("[...document.querySelectorAll('.runs tr.kept')].map(r => +r.dataset.run)")
    assert browser.value("document.querySelectorAll('#scatter circle.kept').length") == len(rows)
    assert browser.value("document.querySelectorAll('.runs [aria-pressed=true]').length") == len(rows)
    return rows


def test_the_table_is_filtered(browser: Browser) -> None:
    for text, numbers in {
        "count>=5": [1, 2, 3, 4, 5, 6],
        "CIDEr-D<=42": [11, 12],
        "CIDEr-D>42 CIDEr-D<53": [8, 9, 10],
        "image_tokens!=split": [1, 2, 3, 7, 8, 9],
        "image_tokens!=split,resampler": [],
        "seed=1,3 image_tokens.count=5.0": [1, 3, 4, 6],
        "CIDEr-D=93": [1],
        "wall_time<=1min": [7, 8, 9, 10, 11, 12],
        "flops_per_caption>1.2M flops_per_caption<=5M": [4, 5, 6, 7, 8, 9],
        "resampler-5-s2": [2],
        "count>=": list(range(1, 13)),  # not typed to its end
    }.items():
        browser.value(f"document.querySelector('#filter').value = {text!r}; filter()")
        assert shown(browser) == numbers, text
        assert browser.value("document.querySelectorAll('#scatter circle').length") == len(numbers), text


def test_a_column_that_is_not_there_is_said(browser: Browser) -> None:
    browser.value("document.querySelector('#filter').value = 'CIDEr>5'; filter()")
    assert shown(browser) == []
    assert "no column “cider”: try image_tokens," in browser.value(
        "document.querySelector('#count').innerText"
    )


def test_rows_are_marked_with_the_keyboard(browser: Browser) -> None:
    focused = "document.activeElement.getAttribute('aria-label')"
    browser.value("[...document.querySelectorAll('.runs thead button')].at(-1).focus()")
    browser.press("Tab")
    assert browser.value(focused) == "Mark run 1"
    browser.press("ArrowDown")
    browser.press("ArrowDown")
    browser.press(" ")
    assert marked(browser) == [3]
    browser.press("ArrowUp")
    browser.press("Enter")
    assert marked(browser) == [2, 3]
    browser.press(" ")
    assert marked(browser) == [3]
    browser.value("document.querySelector('#filter').value = 'count=1'; filter()")
    browser.value("[...document.querySelectorAll('.runs thead button')].at(-1).focus()")
    browser.press("Tab")
    assert browser.value(focused) == "Mark run 7", "the first row shown, as the one before is hidden"
    browser.press("ArrowUp")
    assert browser.value(focused) == "Mark run 7"
    browser.press("Escape")
    browser.value("document.querySelector('#filter').value = ''; filter()")
    assert marked(browser) == []
    assert browser.complaints() == []


def test_a_row_opens_its_report(browser: Browser, page: Path) -> None:
    assert browser.value("document.querySelectorAll('.runs tbody a').length") == 1
    browser.value("document.querySelector('.runs tbody a').click()")
    wait_for(lambda: browser.value("document.title").startswith("split-5-s2"))
    assert browser.value("decodeURIComponent(location.pathname)") == str(
        page.parent / "split-5-s2/report.html"
    )


def test_many_runs_are_coloured_by_a_setting_that_they_share_evenly(browser: Browser) -> None:
    chosen = "document.querySelector('#colour').selectedOptions[0].text"
    assert browser.value(chosen) == "image_tokens"


def test_an_axis_begins_at_zero_where_values_differ_little(browser: Browser) -> None:
    ticks = "scale({values}, 0, 100, {{zero: .25}}).ticks"
    assert browser.value(ticks.format(values="[95, 100]"))[0] == 0
    assert browser.value(ticks.format(values="[10, 100]"))[0] == 0
    assert browser.value(ticks.format(values="[60, 100]"))[0] == 60
    assert browser.value(ticks.format(values="[-100, -95]"))[-1] < 0


def test_a_phone_keeps_the_runs_and_has_captions_under_their_image(page: Path, tmp_path: Path) -> None:
    with Browser(tmp_path / "phone", width=390, height=844) as browser:
        opened(browser, page)
        assert browser.value("document.documentElement.scrollWidth") == 390
        left = "document.querySelector('.runs tbody .name').getBoundingClientRect().left"
        before = browser.value(left)
        browser.value("document.querySelector('.runs-scroll').scrollLeft = 200")
        assert browser.value("document.querySelector('.runs-scroll').scrollLeft") > 50
        assert browser.value(left) == before
        assert browser.value("document.querySelector('.runs tbody .name').offsetWidth") < 390 / 3
        for address in (page.as_uri(), (page.parent / "split-5-s2/report.html").as_uri()):
            browser.open(address)
            seen(browser, ".card .zoom img")
            below = "document.querySelector('.card .caption').getBoundingClientRect().top"
            picture = "document.querySelector('.card .zoom').getBoundingClientRect().bottom"
            assert browser.value(f"{below} >= {picture}")


def test_pictures_of_a_large_page_are_files_beside_it(
    tab: Browser, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnails, "LARGEST_PAGE", 10_000)
    compare([str(page.parent), "--html", str(tmp_path / "a #1.html")])
    tab.open((tmp_path / "a #1.html").as_uri())
    seen(tab, ".zoom img")
    assert tab.value("document.querySelector('.zoom img').getAttribute('src')").startswith("a%20%231_files/")
    assert tab.complaints() == []


def test_columns_beyond_the_edge_fade_out(browser: Browser) -> None:
    fades = "document.querySelector('.runs-scroll').classList.contains('more')"
    browser.value("document.querySelector('.runs-scroll').style.width = '300px'")
    browser.value("dispatchEvent(new Event('resize'))")
    wait_for(lambda: browser.value(fades))
    browser.value("document.querySelector('.runs-scroll').scrollLeft = 1e5")
    wait_for(lambda: not browser.value(fades))
