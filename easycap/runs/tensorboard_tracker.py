"""The tracker that mirrors a run into TensorBoard's event files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from easycap.registry import SharedSettings, register
from easycap.runs.run_folder import RunFolder, picture_of
from easycap.runs.trackers import flat_scores, flat_settings
from easycap.utils.extras import check_extra


@dataclass(frozen=True, kw_only=True)
class TensorBoardSettings(SharedSettings):
    """Settings of TensorBoard; `UserError` if it is not installed."""

    also: list[str]

    def __post_init__(self) -> None:
        check_extra("tensorboard", "tracking=tensorboard")


@register("tracking", "tensorboard")
class TensorBoardTracker:
    """Writes event files into the run's folder: curves, sample images with captions; at the end settings and scores.

    A resumed run goes on in the same folder: what an earlier start has logged after the
    step it resumes from is hidden by TensorBoard.
    """

    def __init__(
        self, folder: RunFolder, config: Mapping[str, Any], *, settings: TensorBoardSettings
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter  # seconds to import: only runs that use it pay

        self._make, self._path, self._config = SummaryWriter, folder.path / "tensorboard", config
        self._writer: Any = None

    def _open(self, step: int | None) -> Any:
        """The writer; the step of the first values says from where those of an earlier start are hidden."""
        if self._writer is None:
            self._writer = self._make(str(self._path), purge_step=step, flush_secs=30)
        return self._writer

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        for name, value in values.items():
            self._open(step).add_scalar(name, value, step)

    def samples(self, rows: Sequence[Mapping[str, Any]], *, step: int, epoch: int) -> None:
        writer = self._open(step)
        for row in rows:
            references = "\n".join(f"- {text}" for text in row["references"])
            writer.add_text(f"samples/{row['id']}", f"**{row['caption']}**\n\n{references}", step)
            if epoch <= 1 and (picture := picture_of(row["image"])) is not None:
                pixels = np.asarray(picture.convert("RGB"))
                writer.add_image(f"samples/{row['id']}", pixels, step, dataformats="HWC")
        writer.flush()

    def finish(self, result: Mapping[str, Any] | None, *, status: str, error: str | None = None) -> None:
        writer = self._open(None)
        scores = flat_scores(result)
        if scores:
            # The tab "HParams" compares runs by their settings; run_name="." keeps one folder for a run.
            settings = {
                key: value if isinstance(value, (bool, int, float, str)) else str(value)
                for key, value in flat_settings(self._config).items()
            }
            writer.add_hparams(settings, scores, run_name=".")
        writer.close()
