"""Heartbeats between ranks: without them, a rank would wait for hours for one that died."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

logger = logging.getLogger(__name__)

BEAT_SECONDS = 2.0
# Long enough for a call that holds the GIL for a while.
DEAD_SECONDS = 40.0
# A rank inside a collective usually notices the loss there and reports it itself.
GRACE_SECONDS = 10.0
# How long to wait for the thread at the end: calls of the store return at once, unless its host is frozen.
_END_SECONDS = 10.0


class Heartbeat:
    """While entered, counts up for this rank in the `store`, and ends the process if another rank's count stops.

    `store` is a torch.distributed.Store. `on_rank_lost` is called with the reason before the process ends with exit
    code 1.
    """

    def __init__(self, store: Any, rank: int, world_size: int, on_rank_lost: Callable[[str], None]) -> None:
        self.store, self.rank, self.on_rank_lost = store.clone(), rank, on_rank_lost
        self.others = [other for other in range(world_size) if other != rank]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        # A process that ends while the thread is inside the store aborts: C++ cannot be unwound by Python's exit.
        self._thread.join(_END_SECONDS)

    def _beat(self) -> None:
        seen = {rank: (b"", time.monotonic()) for rank in self.others}
        for beat in range(10**9):
            if self._over.wait(BEAT_SECONDS):
                return
            try:
                self.store.set(f"alive/{self.rank}", str(beat))
                dead = self._silent(seen)
            except RuntimeError:  # the store lives in rank 0 or in the launcher
                dead = "the launcher or rank 0"
            if dead and not self._over.wait(GRACE_SECONDS):
                self._end(f"rank {self.rank} ends because {dead} died")

    def _silent(self, seen: dict[int, tuple[bytes, float]]) -> str | None:
        for rank in self.others:
            key = f"alive/{rank}"
            beat = self.store.get(key) if self.store.check([key]) else b""
            if beat != seen[rank][0]:
                seen[rank] = (beat, time.monotonic())
            elif time.monotonic() - seen[rank][1] > DEAD_SECONDS:
                return f"rank {rank}"
        return None

    def _end(self, why: str) -> None:
        logger.error(why)
        try:
            self.on_rank_lost(why)
        finally:
            os._exit(1)
