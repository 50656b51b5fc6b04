"""What a person sees while training runs: a bar on a terminal, one log line per epoch everywhere."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)


class TrainingProgress:
    """A progress bar with loss, images/s and time left; without a terminal only the lines of `report`."""

    def __init__(self, total_steps: int, step: int, *, shown: bool) -> None:
        console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:.0f} images/s  left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (shown and console.is_terminal),
        )
        self.task = self.bar.add_task(
            "training", total=total_steps, completed=step, loss=float("nan"), speed=0.0
        )

    def __enter__(self) -> TrainingProgress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def advance(self, step: int, loss: float, images_per_second: float) -> None:
        self.bar.update(self.task, completed=step, loss=loss, speed=images_per_second)

    def report(
        self,
        epoch: int,
        trained: Mapping[str, float],
        metric: str,
        values: Mapping[str, float],
        *,
        oracle: bool = False,
    ) -> None:
        """Log one line about an epoch: the loss of its last step, then what validation found, scores x100, marked where
        an `oracle` helped.

        Where captions are rewarded: the last step's reward, and, beside the scores, what rewards may spoil.
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
            logger.info("epoch %d: training %s %.3f  %s", epoch, kind, trained[kind], shown)
