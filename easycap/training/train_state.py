"""How far a training has come, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

_SHOWN_BY_EPOCH = ("loss", "reward")
# Names in progress.json of earlier versions.
_RENAMED = {
    "stale": "validations_without_improvement",
    "first": "stage_start_metrics",
    "values_of_best": "best_metrics",
}


@dataclass
class TrainState:
    """All of a training's state that is not a tensor; progress.json of a checkpoint has it.

    `best` is the metric of the best validation so far, which measured `best_metrics`
    after step `best_step`. `stage_start_metrics` are the metrics of the weights that
    this `stage` (from 0) began with, or else of its first validation. `logged` counts
    the calls of the tracker. `epoch_sums` are sums over the epoch's steps of what each
    logged, times its words, and `epoch_words` those words. `train_seconds` includes
    loading but not validation. `threads` and `precision` are those the run computes
    with. `warnings` are those of the last validation, and `warned` their kinds.
    """

    step: int = 0
    epoch: int = 0
    best: float | None = None
    best_step: int | None = None
    best_metrics: dict[str, float] = field(default_factory=dict)
    validations_without_improvement: int = 0
    stage: int = 0
    stage_start_metrics: dict[str, float] = field(default_factory=dict)
    train_seconds: float = 0.0
    images_seen: int = 0
    logged: int = 0
    loss_scale: dict[str, float] = field(default_factory=dict)
    threads: int | None = None
    precision: str | None = None
    warnings: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    epoch_sums: dict[str, float] = field(default_factory=dict)
    epoch_words: float = 0.0

    @classmethod
    def from_progress(cls, progress: Mapping[str, Any]) -> TrainState:
        """Return the state that progress.json of this or an earlier version describes."""
        return cls(**{_RENAMED.get(name, name): value for name, value in progress.items()})

    def add(self, values: Mapping[str, float], words: float) -> None:
        """Add a step that logged `values`, which are means over `words` words."""
        for name in _SHOWN_BY_EPOCH:
            if name in values:
                self.epoch_sums[name] = self.epoch_sums.get(name, 0.0) + words * values[name]
        self.epoch_words += words

    @property
    def epoch_means(self) -> dict[str, float]:
        """The epoch's means per word so far; empty before its first step."""
        return {name: total / self.epoch_words for name, total in self.epoch_sums.items()}

    @property
    def images_per_second(self) -> float:
        """Training speed so far, in images per second of `train_seconds`."""
        return self.images_seen / self.train_seconds if self.train_seconds else 0.0

    def new_warnings(self, found: Mapping[str, str], epoch: int) -> list[str]:
        """Record the warnings {kind: sentence} about the validation after `epoch` epochs.

        Returns those of kinds that the previous validation did not have.
        """
        sentences = {kind: f"after epoch {epoch}: {sentence}" for kind, sentence in found.items()}
        new = [sentence for kind, sentence in sentences.items() if kind not in self.warned]
        self.warned, self.warnings = list(sentences), list(sentences.values())
        return new

    def end_epoch(self) -> None:
        """Begin the next epoch, with nothing added up yet."""
        self.epoch, self.epoch_sums, self.epoch_words = self.epoch + 1, {}, 0.0

    def begin_stage(self) -> None:
        """Begin the next stage with the best weights."""
        self.stage, self.validations_without_improvement = self.stage + 1, 0
        self.stage_start_metrics = self.best_metrics


class EarlyStopping:
    """Ends a stage after `patience` validations without a better `metric` (None: never)."""

    def __init__(self, metric: str, patience: int | None) -> None:
        self.metric, self.patience = metric, patience

    def compare(self, state: TrainState, values: dict[str, float]) -> None:
        """Record in `state` whether a validation that measured `values` is the best so far."""
        if state.best is None or values[self.metric] > state.best:
            state.best, state.best_step, state.best_metrics = values[self.metric], state.step, values
            state.validations_without_improvement = 0
        else:
            state.validations_without_improvement += 1

    def has_run_out(self, state: TrainState) -> bool:
        """Whether the stage has had all its `patience`."""
        return self.patience is not None and state.validations_without_improvement >= self.patience

    def reason(self, state: TrainState) -> str | None:
        """Return why a stage ends, None while it may continue."""
        if not self.has_run_out(state):
            return None
        count = state.validations_without_improvement
        return f"{self.metric} has not improved in {count} validations (trainer.patience)"

    def ended(self, state: TrainState, total_steps: int) -> str | None:
        """Return why a run ends before its last step, None if it does not."""
        reason = self.reason(state)
        return reason and f"{reason}: ended after step {state.step} of {total_steps}"


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves behind besides its files.

    `best` is the best validation metric, `ended_early` the reason if it ended early.
    """

    best: float | None
    cost: dict[str, float]
    warnings: list[str]
    ended_early: str | None


def training_cost(model: nn.Module, state: TrainState) -> dict[str, float]:
    """Return the cost of training, as result.json records it."""
    parameters = list(model.parameters())
    return {
        "train_seconds": state.train_seconds,
        "steps": state.step,
        "images_per_second": state.images_per_second,
        "total_parameters": sum(p.numel() for p in parameters),
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
    }
