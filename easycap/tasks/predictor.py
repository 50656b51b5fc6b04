"""Predictions for images that are not of a run's data, and the options that only some tasks have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypedDict

from PIL import Image

from easycap.errors import UserError
from easycap.types import Example

BATCH_SIZE = 32  # images at a time, unless others are asked for


class Prediction(NamedTuple):
    """A model's prediction for an image: `lines` to print, `row` to store as JSON, and `text`: a caption, or tags "dog,
    bark".
    """

    lines: list[str]
    row: dict[str, Any]
    text: str


class EvaluationOptions(TypedDict, total=False):
    """Options of `easycap evaluate` that are not for every task."""

    decoding: str | None
    samples: int | None
    rounds: int | None
    metrics: Sequence[str]
    clip: Path | None


class PredictionOptions(TypedDict, total=False):
    """Options of `easycap caption` that are not for every task."""

    decoding: str | None
    draft: str | None
    rounds: int | None
    tags: str | None


class Predictor(ABC):
    """Predicts for images that are not of the run's data; made by `Task.predictor`."""

    doing: ClassVar[str]
    notices: Sequence[str] = ()

    @abstractmethod
    def __call__(self, examples: Sequence[Example]) -> list[Prediction | UserError]:
        """Return a prediction for each image, or the error that kept it from being read."""

    @abstractmethod
    def prepare(self, examples: Sequence[Example], *, ahead: int) -> None:
        """Choose what is fastest on these images, of `ahead` in all."""

    @abstractmethod
    def check_attention(self) -> None:
        """Raise `UserError` if there is no attention over the image to draw."""

    @abstractmethod
    def draw_attention(self, example: Example, prediction: Prediction) -> Image.Image:
        """Return a picture of where the model looked; only after `check_attention`."""
