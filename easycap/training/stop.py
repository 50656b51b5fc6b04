"""Ending training early without losing it: Ctrl-C, STOP_SIGNALS and `trainer.max_hours` wait until it can be saved."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType, TracebackType
from typing import Any, NoReturn, TypeVar

from easycap.errors import OutOfTime
from easycap.utils.processes import STOP_SIGNALS, heeded, leave_dead_terminal

logger = logging.getLogger(__name__)

T = TypeVar("T")

_Handler = (
    Callable[[int, FrameType | None], Any] | int | signal.Handlers | None
)  # as `signal.signal` takes it
_IMPATIENT_SECONDS = 2.0


class Stop:
    """Says whether training was asked to end; inside this context, a signal is only noted.

    A second Ctrl-C, at least two seconds after the first (launchers send every signal twice), ends at once. Signals
    can be noted in the main thread only; elsewhere just `max_hours`, counted from here, has an effect.
    """

    KINDS = OUT_OF_TIME, INTERRUPTED = 1, 2  # the more urgent later

    def __init__(self, max_hours: float | None) -> None:
        self.max_hours = max_hours
        self._deadline = None if max_hours is None else time.monotonic() + 3600 * max_hours
        self._process = os.getpid()
        self._asked_at: float | None = None
        self._at_once = False
        self._before: dict[signal.Signals, _Handler] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for kind in heeded((signal.SIGINT, *STOP_SIGNALS)):
                self._before[kind] = signal.signal(kind, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @property
    def interrupted(self) -> bool:
        """Whether a signal asked the training to end."""
        return self._asked_at is not None

    @property
    def asked(self) -> int:
        """INTERRUPTED, OUT_OF_TIME, or 0 as long as training may continue."""
        if self.interrupted:
            return self.INTERRUPTED
        over = self._deadline is not None and time.monotonic() >= self._deadline
        return self.OUT_OF_TIME if over else 0

    def end(self, asked: int, where: str) -> NoReturn:
        """Raise the exception that ends a run after it was `asked` to end and has saved."""
        if asked == self.INTERRUPTED:
            raise KeyboardInterrupt
        raise OutOfTime(f"trainer.max_hours={self.max_hours:g} reached {where}")

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside this context, where nothing would be lost, a signal raises `KeyboardInterrupt` immediately."""
        if self.interrupted:
            raise KeyboardInterrupt
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def awaited(self, steps: Iterator[T], save_and_end: Callable[[], None], *, alone: bool) -> Iterator[T]:
        """Yield the batches of steps; a signal ends the wait for them, which may never end: then `save_and_end()`.

        With several ranks (not `alone`), signals take effect only after a step, which all ranks take together.
        """
        while True:
            try:
                with self.at_once() if alone else nullcontext():
                    batches = next(steps, None)
            except KeyboardInterrupt:
                save_and_end()
                raise
            if batches is None:
                return
            yield batches

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker: the main process decides
            return
        leave_dead_terminal()
        now = time.monotonic()
        asked_at = self._asked_at
        impatient = number == signal.SIGINT and asked_at is not None and now - asked_at > _IMPATIENT_SECONDS
        if asked_at is None:
            self._asked_at = now
        if self._at_once or impatient:
            raise KeyboardInterrupt
        if asked_at is None:
            logger.warning("asked to stop: saving after this step (Ctrl-C again ends at once)")
