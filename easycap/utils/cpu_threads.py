"""The number of CPU threads: what the user sets, else the faster of one and all, measured.

OpenMP threads spin while they wait for each other: next to another busy process, all cores can be several
times slower than one thread; on an idle machine one thread is slower than all.
"""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easycap.utils.machine import usable_cores

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# Variables that set the number of threads or how they wait: if one is set, the user has chosen.
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_MOST_SECONDS = 3.0
_ENOUGH_SECONDS = 1.0
_MOST_OF_WORK = 0.05  # share of the remaining work that the trial may take
_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 9
_FAR = 3.0
_BETTER = 0.95  # use fewer threads if they take at most this share of the time

_LITTLE = 50_000_000  # images times weights: some tenths of a second with one thread

_decided = False  # whether use_threads has fixed the number


@dataclass(frozen=True)
class Trial:
    """Seconds per call of `images` images, by number of threads; empty if there was no time to measure."""

    seconds: dict[int, float]
    images: int = 0

    @property
    def fastest(self) -> int | None:
        """The number of threads to use: the largest unless fewer are clearly faster; None without a trial."""
        if not self.seconds:
            return None
        most, best = max(self.seconds), min(self.seconds, key=self.seconds.__getitem__)
        return best if self.seconds[best] <= _BETTER * self.seconds[most] else most

    def __str__(self) -> str:
        speeds = sorted(self.seconds.items())
        return ", ".join(
            f"{self.images / seconds:.3g} images/s with {threads_text(n)}" for n, seconds in speeds
        )


def set_by_user(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the environment variables about threads that are set."""
    return [name for name in VARIABLES if environment.get(name)]


def max_threads() -> int:
    """Return the largest number of threads to use: torch's, limited by the usable cores."""
    import torch

    return min(torch.get_num_threads(), usable_cores())


def try_threads(
    work: Callable[[int], object],
    candidates: Sequence[int],
    *,
    images: int,
    ahead: int,
    clock: Callable[[], float] = time.perf_counter,
    set_threads: Callable[[int], None] | None = None,
) -> Trial:
    """Time `work` on up to `images` images with each candidate number of threads; afterwards the first one is set.

    Takes at most 3 s, and at most 5 % of the time for the `ahead` images to come: if that is too short, it uses fewer
    images or measures nothing.
    """
    import torch

    set_threads = set_threads or torch.set_num_threads
    if len(set(candidates)) < 2:
        return Trial({})

    def timed(number: int, count: int) -> float:
        set_threads(number)
        before = clock()
        work(count)
        return clock() - before

    try:
        few = min(2, images)  # one alone is too few for BatchNorm
        timed(candidates[0], few)
        started = clock()
        of_few = _seconds_of_few(timed, candidates, few)
        if of_few is None:
            return Trial({})
        budget = min(_MOST_SECONDS, _MOST_OF_WORK * ahead * min(of_few.values()) / few)
        left = budget - (clock() - started)
        count = min(images, int(few * left / (_FEWEST_ROUNDS * sum(of_few.values()))))
        if count < few:  # so few images only show whether threads wait for other processes
            return Trial(of_few, few) if _far_apart(of_few) else Trial({})
        return Trial(_rounds(timed, candidates, count, started + budget, clock), count)
    finally:
        set_threads(candidates[0])


def _seconds_of_few(
    timed: Callable[[int, int], float], candidates: Sequence[int], few: int
) -> dict[int, float] | None:
    """Seconds of the least work by number of threads, the fewest first; None if that alone takes most of the time."""
    seconds: dict[int, float] = {}
    for number in sorted(candidates):
        if sum(seconds.values()) > _MOST_SECONDS / 2:
            return None
        seconds[number] = timed(number, few)
    return seconds


def _far_apart(seconds: Mapping[int, float]) -> bool:
    """Whether all threads together take several times as long as fewer."""
    return seconds[max(seconds)] > _FAR * min(seconds.values())


def _rounds(
    timed: Callable[[int, int], float],
    candidates: Sequence[int],
    count: int,
    deadline: float,
    clock: Callable[[], float],
) -> dict[int, float]:
    """Median seconds by number of threads, over alternating rounds."""
    seconds: dict[int, list[float]] = {number: [] for number in candidates}
    began = clock()
    for done in range(_MOST_ROUNDS):
        spent = clock() - began
        if done >= _FEWEST_ROUNDS and spent >= _ENOUGH_SECONDS:
            break
        if done and clock() + spent / done > deadline:
            break
        for number in candidates if done % 2 == 0 else reversed(candidates):
            seconds[number].append(timed(number, count))
    return {number: statistics.median(values) for number, values in seconds.items()}


def use_threads(count: int) -> None:
    """Set torch's number of threads; no trial changes it until `restore_thread_count` ends."""
    import torch

    global _decided
    torch.set_num_threads(count)
    _decided = True


@contextmanager
def restore_thread_count() -> Iterator[None]:
    """Restore torch's number of threads on exit."""
    import torch

    global _decided
    before, decided = torch.get_num_threads(), _decided
    try:
        yield
    finally:
        _decided = decided
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def choose_threads(
    work: Callable[[int], object], *, images: int, ahead: int, device: torch.device, what: str
) -> None:
    """Set torch's number of threads to the fastest for `work`, with `ahead` images to come.

    `work` is called with a number of images, up to `images`; `what` names it in the log. Measures nothing if the number
    was set by the user or by `use_threads`, or if `device` is not a CPU.
    """
    import torch

    if _decided or set_by_user():
        return
    most = max_threads()
    torch.set_num_threads(most)
    if device.type != "cpu":
        return
    with torch.random.fork_rng([]):
        trial = try_threads(work, (most, 1), images=images, ahead=ahead)
    if trial.fastest is not None:
        torch.set_num_threads(trial.fastest)
        logger.info("%s with %s (tried: %s)", what, threads_text(trial.fastest), trial)


def one_thread_for_little(weights: int, *, images: int, device: torch.device) -> None:
    """Use one thread for so few images of so small a model that other threads would mostly start and wait.

    As in `choose_threads`, a number that was set before stays.
    """
    import torch

    if device.type == "cpu" and images * weights <= _LITTLE and not (_decided or set_by_user()):
        torch.set_num_threads(1)


class FastestThreads:
    """Wraps a function of a batch of images (N,...): its first batch is used to choose the number of threads."""

    def __init__(
        self, work: Callable[[torch.Tensor], Any], *, ahead: int, device: torch.device, what: str
    ) -> None:
        self.work, self.ahead, self.device, self.what = work, ahead, device, what
        self.chosen = False

    def __call__(self, images: torch.Tensor) -> Any:
        """Return what the wrapped function makes of images, with the faster number of threads."""
        if not self.chosen:
            self.chosen = True
            choose_threads(
                lambda count: self.work(images[:count]),
                images=len(images),
                ahead=self.ahead,
                device=self.device,
                what=self.what,
            )
        return self.work(images)


def threads_text(count: int) -> str:
    """Return "1 thread", "2 threads"."""
    return f"{count} thread" + "s" * (count != 1)
