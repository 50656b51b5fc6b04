"""Progress: a bar on a terminal, lines at least every 30 seconds elsewhere, and log lines that leave the bar whole."""

from __future__ import annotations

import io
import itertools
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.tiny_config import TINY
from helpers.waiting import wait_for
from hypothesis import given
from hypothesis import strategies as st

from easycap.training.progress import TrainingProgress
from easycap.utils import console
from easycap.utils import progress_bar as module
from easycap.utils.console import LogHandler, say
from easycap.utils.progress_bar import Progress, duration, tracked


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Called in a test, makes standard error a terminal (pytest sets both streams after the fixtures)."""

    def make() -> Terminal:
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", "xterm")
        return stream

    return make


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name.startswith("easycap")]


@given(st.lists(st.floats(0.01, 29), min_size=1, max_size=200))
def test_no_30_seconds_pass_without_a_line(steps: list[float]) -> None:
    clock, logged = Clock(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_say", lambda line: logged.append((clock.now, line)))
        with Progress("caching features", len(steps), clock=clock) as progress:
            for seconds in steps:
                clock.now += seconds
                progress.advance()
    times = [1000.0, *(moment for moment, _ in logged), clock.now]
    assert all(later - before <= 30 + 29 for before, later in itertools.pairwise(times))
    # The first look after a line is due finds it; and no two are within 5 s, but for the one that ends it.
    assert all(later - before >= 5 for before, later in itertools.pairwise(times[:-2]))


def test_a_line_says_what_was_told_the_speed_and_the_time_left(clock: Clock, caplog) -> None:
    caplog.set_level("INFO")
    with Progress("caching features", 6000, clock=clock) as progress:
        for _ in range(4):
            clock.now += 10
            progress.advance(250, "on the disk")
    assert lines_of(caplog) == [
        "caching features: 500 of 6,000 images (8%), on the disk, 25 images/s, about 4 min left",
        "caching features: 1,000 of 6,000 images (17%), on the disk, 25 images/s, about 3 min left",
        "caching features: 1,000 of 6,000 images in 40 s",
    ]


def test_work_of_which_nothing_gets_done_for_long_is_heard_of_too(monkeypatch, caplog) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(module, "LINE_SECONDS", 0.05)
    monkeypatch.setattr(module, "_TICK", 0.01)
    with Progress("scoring", 5, unit="metrics"):
        wait_for(lambda: lines_of(caplog), 20)
    assert lines_of(caplog)[0] == "scoring: 0 of 5 metrics (0%)"


def test_short_work_says_nothing(clock: Clock, caplog, capsys) -> None:
    caplog.set_level("INFO")
    assert list(tracked(range(100), "scoring", 100, clock=clock)) == list(range(100))
    assert not lines_of(caplog) and capsys.readouterr() == ("", "")


def test_without_a_log_lines_go_to_standard_error(clock: Clock, capsys) -> None:
    with Progress("captioning", 2, clock=clock) as progress:
        clock.now += 31
        progress.advance()
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("captioning: 1 of 2 images (50%)")


def test_of_work_inside_of_other_work_the_inner_speaks(clock: Clock, caplog) -> None:
    caplog.set_level("INFO")
    with Progress("training", 10, clock=clock) as outer, Progress("captioning", 4, clock=clock) as inner:
        clock.now += 40
        outer.tick()
        assert not lines_of(caplog)
        inner.advance()
    assert [line.partition(":")[0] for line in lines_of(caplog)] == ["captioning"] * 2


def test_other_ranks_are_silent(clock: Clock, caplog, monkeypatch) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(module, "_silent", True)
    with Progress("training", 10, clock=clock) as progress:
        clock.now += 40
        progress.advance()
    assert not lines_of(caplog)


@pytest.mark.parametrize(("per_epoch", "part"), [(960, " (4 min per epoch)"), (2108, "")])
def test_how_long_training_takes_is_said_once_some_steps_are_measured(
    clock: Clock, caplog, per_epoch: int, part: str
) -> None:
    caplog.set_level("INFO")
    epochs = SimpleNamespace(total_steps=2108, per_epoch=per_epoch)
    with TrainingProgress(epochs, 100, shown=True, clock=clock) as progress:
        for step in range(101, 320):
            clock.now += 9 if step < 103 else 0.25  # the first steps set things up
            progress.advance(step, 3.2, 98)
    about = [line for line in lines_of(caplog) if "on this machine" in line]
    assert about == [
        f"training takes about 8 min on this machine{part}: 2,000 steps of 0.25 s, without validation"
    ]
    steps = [line for line in lines_of(caplog) if line.startswith("training: ")]
    assert steps[0].startswith("training: 150 of 2,108 steps (7%), loss 3.200, 98 images/s, about")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (5399, "90 min"), (12000, "3 h 20 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text if seconds != 5399 else duration(seconds) in ("90 min", "1 h 30 min")


# ------------------------------------------------------------------------------------------- on a terminal


def begun(progress: Progress, clock: Clock) -> None:
    """Let the bar appear."""
    clock.now += 1
    progress.advance()
    assert console.live is not None


def plain_lines(terminal: Terminal) -> list[str]:
    """What stands in the lines of a terminal in the end: without escape sequences, after the last return."""
    text = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", terminal.getvalue())
    return [line.rpartition("\r")[2] for line in text.split("\n")]


def test_all_open_work_has_a_bar_and_none_is_left_behind(on_terminal, clock: Clock) -> None:
    terminal = on_terminal()
    with Progress("training", 10, clock=clock) as outer:
        begun(outer, clock)
        with Progress("captioning", 4, clock=clock) as inner:
            begun(inner, clock)
            assert len(module._bars.display.tasks) == 2
            module._bars.display.refresh()
    assert console.live is None and module._bars.display is None
    text = terminal.getvalue()
    assert "training" in text and "captioning" in text and "1 of 4 images" in text
    assert text.endswith("\x1b[2K\x1b[?25h\r")  # the last line is cleared


def test_log_lines_are_whole_above_the_bar_and_printed_as_they_are(on_terminal, clock: Clock) -> None:
    terminal = on_terminal()
    handler, text = LogHandler(), "b [copy].jpg [/photo] [red] :dog: " + "long " * 60 + "end"
    with Progress("training", 10, clock=clock) as progress:
        begun(progress, clock)
        handler.emit(logging.LogRecord("easycap", logging.INFO, "", 0, text, None, None))
    handler.emit(logging.LogRecord("easycap", logging.INFO, "", 0, "afterwards", None, None))
    assert {text, "afterwards"} <= set(plain_lines(terminal))


def test_standard_output_stays_where_it_goes(on_terminal, clock: Clock, capsys) -> None:
    """Captions of `easycap caption RUN FILES > captions.txt` must not end on the terminal."""
    on_terminal()
    with Progress("captioning", 10, clock=clock) as progress:
        begun(progress, clock)
        print("with print")
        say("with say")
    assert capsys.readouterr().out == "with print\nwith say\n"


def test_a_caption_on_the_terminal_of_the_bar_is_above_it(on_terminal, clock: Clock, monkeypatch) -> None:
    terminal = on_terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    with Progress("captioning", 10, clock=clock) as progress:
        begun(progress, clock)
        say("a.jpg: a [red] dog")
    assert "a.jpg: a [red] dog" in plain_lines(terminal)


def test_a_forked_process_can_show_progress_of_its_own(clock: Clock) -> None:
    """Of the parent it inherits a lock that a thread may hold."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with module._lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    if not (child := os.fork()):
        with Progress("reading", 1, clock=clock) as progress:
            progress.advance()
        os._exit(0)
    try:
        wait_for(lambda: os.waitpid(child, os.WNOHANG) != (0, 0), 20)
    finally:
        done.set()
        thread.join()


# ------------------------------------------------------------------------------------------- where it is used

_RUN = """
import sys
from easycap.utils import progress_bar as progress
progress.LINE_SECONDS = progress._SHORT = 0.0
from easycap.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


def said_by(*argv: str, cache: Path, outputs: Path) -> str:
    environment = os.environ | {"EASYCAP_CACHE": str(cache), "EASYCAP_OUTPUTS": str(outputs)}
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *argv], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_all_that_takes_long_in_a_run_is_heard_of_without_a_terminal(tmp_path: Path) -> None:
    places: dict[str, Path] = {"cache": tmp_path / "cache", "outputs": tmp_path / "out"}
    frozen = ["trainer.cache_features=true", "trainer.unfreeze_encoder_at_epoch=null", "trainer.epochs=3"]
    logged = said_by("train", *TINY, *frozen, **places)
    for what in ("drawing scenes", "caching features", "training", "validation loss", "scoring"):
        assert f"\n{what}: " in logged, what
    assert "captioning for validation: " in logged and "\ncaptioning: " in logged
    assert "training: 2 of 18 steps (11%), loss " in logged and " steps of " in logged
    (run,) = (tmp_path / "out" / "runs").iterdir()
    assert "training: " in (run / "train.log").read_text()
    assert "captioning: " in said_by("evaluate", str(run), **places)
    pictures = [str(path) for path in sorted((run / "samples" / "images").glob("*.png"))]
    logged = said_by("caption", str(run), *pictures, "--batch-size", "1", **places)
    assert f"captioning: 1 of {len(pictures)} images" in logged


def test_there_is_no_second_way_to_show_progress() -> None:
    package = Path(module.__file__).parent
    texts = {str(path.relative_to(package)): path.read_text("utf-8") for path in package.rglob("*.py")}

    def users(word: str) -> list[str]:
        return [name for name, text in texts.items() if word in text]

    assert users("rich.progress") == ["progress_bar.py"]
    assert users("import Console") == ["console.py"]
    assert not users("rich.markup")
