"""The threads of a training run: chosen at its start, kept when it is resumed, so that resuming stays exact."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Sequence

import torch

from easycap.training.distributed import Ranks
from easycap.utils.cpu_threads import Trial, max_threads, set_by_user, threads_text, use_threads
from easycap.utils.machine import usable_cores

logger = logging.getLogger(__name__)

AUTO = "auto"
_MUCH_FASTER = 1.3
_SLOW = 0.5  # of the usual speed
_SECONDS_TO_WARN = 60.0
_SECONDS_PER_PIECE = 5.0


def use_configured_threads(setting: int | str) -> None:
    """Use the number of threads of trainer.threads from now on, if it is a number; never more than usable cores."""
    if setting == AUTO:
        return
    number = _limited(int(setting))
    if number < int(setting):
        logger.warning(
            "trainer.threads=%s: using %s, as this process may use no more cores",
            setting,
            threads_text(number),
        )
    use_threads(number)


def choose_training_threads(
    setting: int | str,
    recorded: int | None,
    *,
    on_cpu: bool,
    ranks: Ranks,
    try_threads: Callable[[Sequence[int]], Trial],
) -> int:
    """Set torch's number of threads for a run and return it.

    It is `setting` if that is a number, else the one set in the environment, else the one `recorded` when the run was
    first started, else the fastest in a trial. All ranks use the same number.
    """
    number = _threads_of_user(setting, recorded, ranks)
    if number is None:
        most = -ranks.all_reduce_max(-max_threads())
        number = recorded or most
        if on_cpu:
            trial = _of_all_ranks(try_threads([number, *sorted({1, most} - {number})]), ranks)
            number = _chosen(trial, recorded, most)
    use_threads(number)
    return number


def _limited(number: int) -> int:
    return min(number, usable_cores())


def _threads_of_user(setting: int | str, recorded: int | None, ranks: Ranks) -> int | None:
    if setting != AUTO:
        return _limited(int(setting))
    names = ranks.broadcast(set_by_user())
    if not names:
        return None
    number = torch.get_num_threads()
    if recorded not in (None, number):
        logger.warning(
            "%s: resuming with %s instead of %d; results may differ in the last digits from an uninterrupted run",
            ", ".join(names),
            threads_text(number),
            recorded,
        )
    return number


def _of_all_ranks(trial: Trial, ranks: Ranks) -> Trial:
    """Merge the trials of all ranks: the slowest rank determines the speed."""
    trials = ranks.all_gather(trial)
    if not all(one.seconds for one in trials):
        return Trial({})
    per_image = {n: max(one.seconds[n] / one.images for one in trials) for n in trial.seconds}
    return Trial({n: seconds * trial.images for n, seconds in per_image.items()}, trial.images)


def _chosen(trial: Trial, recorded: int | None, most: int) -> int:
    fastest = trial.fastest
    if recorded is None:
        if fastest is None:
            return most
        logger.info(
            "training with %s (tried: %s; trainer.threads=%d skips the trial)",
            threads_text(fastest),
            trial,
            fastest,
        )
        return fastest
    if fastest is not None and trial.seconds[recorded] > _MUCH_FASTER * trial.seconds[fastest]:
        logger.warning(
            "resuming with %s, as before, so that results stay exact; %s would be %.1f times as fast now: to switch, "
            "stop this run and resume it with OMP_NUM_THREADS=%d",
            threads_text(recorded),
            threads_text(fastest),
            trial.seconds[recorded] / trial.seconds[fastest],
            fastest,
        )
    return recorded


class SpeedWatch:
    """Detects slowdowns: a minute below half of the run's own median of images per second."""

    def __init__(self) -> None:
        self.has_warned = False
        self.forget()

    def forget(self) -> None:
        """Start over: the work per step has changed."""
        self.usual: list[float] = []  # images/s of pieces of some seconds each
        self.slow: list[float] = []
        self.slow_seconds = self.seconds = 0.0
        self.images = 0

    def watch(self, images: int, seconds: float) -> None:
        """Record a step, `seconds` without loading, and warn once if steps have become slow."""
        found = self.add(images, seconds)
        if found is not None:
            warn_of_slowness(*found)

    def add(self, images: int, seconds: float) -> tuple[float, float] | None:
        """Record a step; return (slow, usual) images/s once, after a slow minute."""
        self.images, self.seconds = self.images + images, self.seconds + seconds
        if self.seconds < _SECONDS_PER_PIECE:
            return None
        speed, length = self.images / self.seconds, self.seconds
        self.images, self.seconds = 0, 0.0
        if not self.usual or speed >= _SLOW * statistics.median(self.usual):
            self.usual.append(speed)
            self.slow, self.slow_seconds = [], 0.0
            return None
        self.slow.append(speed)
        self.slow_seconds += length
        if self.has_warned or self.slow_seconds < _SECONDS_TO_WARN:
            return None
        self.has_warned = True
        return statistics.median(self.slow), statistics.median(self.usual)


def warn_of_slowness(slow: float, usual: float) -> None:
    """Warn that the machine has become busy, and say what to do."""
    advice = (
        "stop this run (Ctrl-C saves) and resume it with OMP_NUM_THREADS=1 easycap train resume=RUN, as one thread "
        "does not wait for others"
        if torch.get_num_threads() > 1
        else "end other work on this machine, or wait"
    )
    logger.warning(
        "training has slowed to %.0f images/s (%.0f before): other processes are using the cores; %s",
        slow,
        usual,
        advice,
    )
