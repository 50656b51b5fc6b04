"""Progress of long work: a bar on a terminal, elsewhere a log line at least every 30 seconds."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from easycap.utils import console

logger = logging.getLogger(__name__)

T = TypeVar("T")

LINE_SECONDS, LINE_SHARE = 30.0, 0.05  # a line is due after so long, or after this share of the work
_SHORT = 5.0  # seconds: two lines are not closer than that
_NO_BAR_BEFORE = 0.5  # seconds; shorter work shows no bar
_TICK = 0.5  # seconds between updates

_lock = threading.RLock()
_open: list[Progress] = []
_silent = False


def silence() -> None:
    """Show no progress in this process: only one of several ranks does."""
    global _silent
    _silent = True


class Progress:
    """Context manager that shows that `done` of `total` units of work are done.

    On a terminal it shows a bar, below those of enclosing work, which disappears at the end. Elsewhere it logs lines
    with the `details` of `advance`, the speed and the time left: after every 5 % of the work and at least every 30
    seconds; nested work logs instead of the enclosing work. `with_speed`: show units per second. `clock` is in seconds.
    """

    def __init__(
        self,
        what: str,
        total: int,
        *,
        unit: str = "images",
        done: int = 0,
        with_speed: bool = True,
        shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self.with_speed, self.shown, self.clock = with_speed, shown, clock
        self.details = ""
        self._bar: Any = None
        self._has_logged = False
        self._over = threading.Event()

    def __enter__(self) -> Progress:
        self._started = self._last = self.clock()
        self._on_terminal = sys.stderr.isatty() and not console.console(stderr=True).is_dumb_terminal
        self._first_done = self._last_done = self.done
        if self.shown and not _silent:
            with _lock:
                _open.append(self)
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with _lock:
            if self not in _open:
                return
            _open.remove(self)
            _bars.remove(self._bar)
            if self._has_logged and kind is None:
                _say(f"{self.what}: {self._amount()} in {duration(self.clock() - self._started)}")

    def advance(self, count: int = 1, details: str = "") -> None:
        """Count `count` more units as done and show `details` next to them."""
        self.reach(self.done + count, details)

    def reach(self, done: int, details: str = "") -> None:
        """Set the number of units done so far."""
        self.done, self.details = done, details
        self.tick()

    def tick(self) -> None:
        """Update the bar, or log a line if one is due."""
        with _lock:
            if not _open or _open[-1] is not self:
                return
            now = self.clock()
            if self._on_terminal:
                if self._bar is None and now - self._started >= _NO_BAR_BEFORE:
                    self._bar = _bars.add(self)
                if self._bar is not None:
                    _bars.update(self._bar, self)
            elif self._line_is_due(now):
                self._last, self._last_done, self._has_logged = now, self.done, True
                _say(self.sentence())

    def sentence(self) -> str:
        """Return "what: done of total unit (share), ..., about so long left"."""
        share = f" ({self.done / self.total:.0%})" if self.total else ""
        parts = [f"{self._amount()}{share}", *self.extras()]
        return f"{self.what}: {', '.join(parts)}"

    def extras(self) -> list[str]:
        """Details, speed and time left."""
        seconds, done = self.clock() - self._started, self.done - self._first_done
        parts = [self.details] if self.details else []
        if done > 0 and seconds > 0:
            if self.with_speed:
                parts.append(f"{_number(done / seconds)} {self.unit}/s")
            if self.total > self.done:
                parts.append(f"about {duration(seconds / done * (self.total - self.done))} left")
        return parts

    def _amount(self) -> str:
        of = "" if self.done == self.total else f" of {self.total:,}"
        return f"{self.done:,}{of} {self.unit}"

    def _line_is_due(self, now: float) -> bool:
        waited, share = now - self._last, (self.done - self._last_done) / max(1, self.total)
        finished = self.done == self.total  # then the next line is the last
        return not finished and (waited >= LINE_SECONDS or (share >= LINE_SHARE and waited >= _SHORT))

    def _watch(self) -> None:
        while not self._over.wait(_TICK):
            self.tick()


def tracked(
    items: Iterable[T], what: str, total: int, *, size: Callable[[T], int] = lambda _: 1, **options: Any
) -> Iterator[T]:
    """Yield the items with progress; each counts `size(item)` of `total` units. `options` are those of `Progress`."""
    with Progress(what, total, **options) as progress:
        for item in items:
            yield item
            progress.advance(size(item))


def duration(seconds: float) -> str:
    """Return a rough time: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _say(line: str) -> None:
    """Log the line if INFO is enabled, else print it to standard error."""
    if logger.isEnabledFor(logging.INFO):
        logger.info(line)
    else:
        print(line, file=sys.stderr, flush=True)


class _Bars:
    """The bars of all open work, in one live display, as a terminal can show only one."""

    def __init__(self) -> None:
        self.display: Any = None

    def add(self, progress: Progress) -> Any:
        """Return the number of a new bar."""
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Display
        from rich.table import Column

        if self.display is None:
            what, extras = (
                TextColumn(
                    f"{{task.{name}}}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")
                )
                for name in ("description", "fields[extras]")
            )
            # Standard output may be a file or a pipe: it is never taken over.
            self.display = Display(
                what,
                BarColumn(),
                extras,
                console=console.console(stderr=True),
                transient=True,
                redirect_stdout=False,
            )
            self.display.start()
            console.live = self.display.console
        return self.display.add_task(progress.what, total=progress.total or None, extras="")

    def update(self, bar: Any, progress: Progress) -> None:
        extras = ", ".join([progress._amount(), *progress.extras()])
        self.display.update(bar, completed=progress.done, total=progress.total or None, extras=extras)

    def remove(self, bar: Any) -> None:
        if bar is None:
            return
        self.display.remove_task(bar)
        if not self.display.tasks:
            with suppress(OSError):  # the terminal may be gone
                self.display.stop()
            self.display = console.live = None


_bars = _Bars()


def _forget() -> None:
    """Reset bars and lock in a forked process: they belong to the parent, one of whose threads may hold the lock."""
    global _lock
    _lock = threading.RLock()
    _open.clear()
    console.live = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
