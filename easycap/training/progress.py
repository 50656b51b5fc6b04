"""What is shown during training: progress, time left, and a line per epoch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from easycap.training.epochs import Epochs
from easycap.utils.progress_bar import Progress, duration

logger = logging.getLogger(__name__)

# Steps before the speed is measured (the first ones include set-up), and steps on which it is measured.
_WARM_UP, _MEASURED = 3, 5


class TrainingProgress:
    """Shows steps, loss, images/s and time left, and logs once an estimate of the duration from measured steps."""

    def __init__(
        self, epochs: Epochs, step: int, *, shown: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.shown, self.clock, self.per_epoch = shown, clock, epochs.per_epoch
        self.progress = Progress(
            "training",
            epochs.total_steps,
            unit="steps",
            done=step,
            with_speed=False,
            shown=shown,
            clock=clock,
        )
        self.first = step
        self._measured_from = 0.0

    def __enter__(self) -> TrainingProgress:
        self.progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.__exit__(kind, error, trace)

    def advance(self, step: int, loss: float, images_per_second: float) -> None:
        """Show that `step` steps are done, the last with this loss."""
        self.progress.reach(step, f"loss {loss:.3f}, {images_per_second:.0f} images/s")
        taken = step - self.first
        if taken == _WARM_UP:
            self._measured_from = self.clock()
        elif taken == _WARM_UP + _MEASURED and self.shown:
            self._log_duration((self.clock() - self._measured_from) / _MEASURED)

    def _log_duration(self, step_seconds: float) -> None:
        left = self.progress.total - self.progress.done
        epoch = "" if left <= self.per_epoch else f" ({duration(self.per_epoch * step_seconds)} per epoch)"
        logger.info(
            "training takes about %s on this machine%s: %s steps of %.2g s, without validation",
            duration(left * step_seconds),
            epoch,
            f"{left:,}",
            step_seconds,
        )

    def report(
        self,
        epoch: int,
        trained: Mapping[str, float],
        metric: str,
        values: Mapping[str, float],
        *,
        oracle: bool = False,
    ) -> None:
        """Log one line about an epoch: mean training loss per word, then the validation scores x100, marked if they
        used an `oracle`.

        `trained` are the epoch's means, empty where an earlier version saved none. Where captions are rewarded: the
        mean reward, and, besides the scores, what rewards may spoil.
        """
        mark = " (oracle)" if oracle else ""
        scores = [f"{name} {100 * values[name]:.1f}{mark}" for name in (metric, "truth") if name in values]
        if "words_per_caption" in values and ("reward" in trained or not epoch):
            scores += [
                f"{name.replace('_', ' ')} {100 * values[name]:.1f}%"
                for name in ("bad_endings", "repeating_captions")
            ]
            scores.append(f"words {values['words_per_caption']:.1f}")
        shown = "  ".join([f"validation loss {values['loss']:.3f}", *scores])
        if not epoch:
            logger.info("before training: %s", shown)
        else:
            kind = "reward" if "reward" in trained else "loss"
            mean = f"training {kind} {trained[kind]:.3f}  " if kind in trained else ""
            logger.info("epoch %d: %s%s", epoch, mean, shown)
