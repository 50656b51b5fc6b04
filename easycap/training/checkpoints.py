"""The checkpoints of a run: `last` to resume from, `best` by validation, and those of the last epochs, if asked for."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import easycap.training.checkpoint_files as checkpoint
from easycap.errors import UserError
from easycap.models.image_model import ImageModel
from easycap.runs.find import EPOCH, epochs_kept
from easycap.training.average import AverageWeights
from easycap.training.checkpoint_files import Whole
from easycap.training.distributed import Ranks
from easycap.training.frozen_files import FrozenFiles
from easycap.training.gradients import Gradients
from easycap.training.optim import Optimization
from easycap.training.parts import gathered
from easycap.training.train_state import TrainState
from easycap.types import Vocabulary
from easycap.utils.checksums import damage

logger = logging.getLogger(__name__)


class Checkpoints:
    """Writes checkpoints of a model into `folder`; of several ranks only the main one writes.

    `config` is stored next to the weights as plain data, and says how many epochs to keep. `gradients` provides the
    weights if ranks have a part each.
    """

    def __init__(
        self,
        folder: Path,
        model: ImageModel,
        vocabulary: Vocabulary,
        config: dict[str, Any],
        ranks: Ranks,
        gradients: Gradients,
    ) -> None:
        self.folder, self.model, self.vocabulary, self.gradients = folder, model, vocabulary, gradients
        self.config, self.ranks = config, ranks
        self.keep_epochs: int = config["trainer"]["keep_checkpoints"]
        self.frozen_files = FrozenFiles()

    @property
    def best(self) -> Path:
        """The folder of the best weights so far."""
        return self.folder / "best"

    def save_last(
        self, state: TrainState, optimization: Optimization, tensors: dict[str, torch.Tensor]
    ) -> None:
        """Save all that a bit-exact resume needs."""
        self._save("last", state, optimization=optimization, tensors=tensors)

    def save_best(self, state: TrainState) -> None:
        """Save the weights alone."""
        self._save("best", state)

    def save_epoch(self, state: TrainState, average: AverageWeights) -> None:
        """Save the weights after an epoch, as validation sees them, if any epochs are kept, and remove older ones."""
        if not self.keep_epochs:
            return
        with average.applied():
            self._save(f"{EPOCH}{state.epoch}", state)
        if self.ranks.is_main:
            for old in epochs_kept(self.folder)[: -self.keep_epochs]:
                shutil.rmtree(old)

    def _save(
        self,
        name: str,
        state: TrainState,
        optimization: Optimization | None = None,
        tensors: dict[str, torch.Tensor] | None = None,
    ) -> None:
        whole = None
        if self.gradients.is_sharded:
            keep = self.ranks.is_main
            states = gathered([] if optimization is None else optimization.state_dict(), keep=keep)
            tensors = gathered(tensors or {}, keep=keep)
            weights = self.gradients.weights()
            whole = None if weights is None else Whole(weights, states)
        if self.ranks.is_main:
            checkpoint.save_checkpoint(
                self.folder / name,
                self.model,
                self.vocabulary,
                self.config,
                progress=asdict(state),
                optimization=optimization,
                tensors=tensors,
                frozen_files=self.frozen_files,
                whole=whole,
            )

    def step_of_best(self) -> int | None:
        """Return after which step `best` was saved, None if there is none or it is damaged, on every rank."""
        return self.ranks.broadcast(self._step_of_best() if self.ranks.is_main else None)

    def _step_of_best(self) -> int | None:
        if reason := damage(self.best):
            logger.warning("%s is damaged: %s", self.best, reason)
            return None
        try:
            return checkpoint.read_progress(self.best).get("step")
        except UserError:
            return None

    def check_space(self) -> None:
        """Raise `UserError` unless three copies of `last`, two of `best` and the epochs kept fit on the disk.

        Frozen weights are stored once.
        """
        if not self.ranks.is_main:
            return
        whole, weights = (checkpoint.checkpoint_bytes(self.model, wanted) for wanted in (True, False))
        frozen = checkpoint.frozen_bytes(self.model)
        stats = [path.stat() for path in self.folder.rglob("*") if path.is_file()]
        there = sum({(one.st_dev, one.st_ino): one.st_size for one in stats}.values())  # links count once
        checkpoint.check_space(self.folder, 3 * whole + (2 + self.keep_epochs) * weights + frozen - there)
