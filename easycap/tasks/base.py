"""What a model is trained for: the interface of a task, and what all tasks do alike."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Unpack

import torch

from easycap.conditioning.conditions import ConditionSet, build_conditions
from easycap.config.instantiate import build, trackers_of
from easycap.config.schema import to_plain
from easycap.data.feature_files import precomputed_features
from easycap.data.transforms import Transform
from easycap.errors import UserError
from easycap.evaluation.ensemble_pipeline import EnsemblePipeline
from easycap.evaluation.evaluation_set import EvaluationSet
from easycap.evaluation.pipeline import Pipeline
from easycap.models.build import BuildModel
from easycap.runs.find import run_of
from easycap.runs.run_folder import RunFolder
from easycap.runs.trackers import FileTracker, Trackers
from easycap.tasks.datasets import read_data
from easycap.tasks.initial_weights import initial_model, precision_of_run, trained_model
from easycap.tasks.predictor import EvaluationOptions, PredictionOptions, Predictor
from easycap.tasks.preflight import Notice, about_initial_weights
from easycap.training.distributed import SINGLE_PROCESS, Ranks
from easycap.training.hardware import Precision, inference_precision, make_default, pick_device
from easycap.training.trainer_config import TrainerConfig
from easycap.types import Batch, Dataset, Example, Inputs, Objective, Tracker

# Of a run that is loaded to caption photos: its data is not read.
NO_DATA = Dataset("none", {})


class Summary(NamedTuple):
    """What a task knows before training, as text for the log and as entries of result.json."""

    text: str
    result: dict[str, Any]


class Task(ABC):
    """A model with its data and vocabulary, and the methods for training, evaluation and prediction.

    Made by `for_training` or `from_checkpoint`. The references of `data` are the training
    targets.
    """

    build_from_config: ClassVar[BuildModel]
    default_metric: ClassVar[str]  # of the best checkpoint
    doing: ClassVar[str]  # captioning or tagging, for progress

    def __init__(
        self,
        config: dict[str, Any],
        data: Dataset,
        vocabulary: Any,
        model: Any,
        conditions: ConditionSet,
        *,
        device: torch.device,
        precision: Precision,
        ranks: Ranks,
    ) -> None:
        self.config, self.vocabulary, self.conditions, self.ranks = config, vocabulary, conditions, ranks
        self.data = self.with_targets(data)
        self.device = device
        self.trainer_config: TrainerConfig = build("trainer", config["trainer"] | {"precision": precision})
        self.pipeline = self._pipeline(model, precision)

    def _pipeline(self, model: Any, precision: Precision) -> Pipeline:
        view = precomputed_features(self.config["encoder"]) or Transform(model.encoder.preprocessing)
        return Pipeline(
            model=model,
            vocabulary=self.vocabulary,
            view=view,
            conditions=self.conditions,
            max_length=self.max_length(model),
            device=self.device,
            precision=precision,
            workers=self.config["trainer"]["workers"],
        )

    @property
    def model(self) -> Any:
        """The model, on its device."""
        return self.pipeline.model

    @property
    def is_ensemble(self) -> bool:
        """Whether several models predict together; see `load_ensemble`."""
        return isinstance(self.pipeline, EnsemblePipeline)

    @classmethod
    def for_training(
        cls,
        config: dict[str, Any],
        data: Dataset,
        vocabulary: Any,
        model: Any,
        *,
        resume_from: Path | None = None,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> Task:
        """Return the task of a training, with the model on its device."""
        device = pick_device(config["device"])
        make_default(device)
        run = None if resume_from is None else run_of(resume_from)
        return cls(
            config,
            data,
            vocabulary,
            model.to(device),
            build_conditions(config, read_splits=lambda: data.splits, run=run, device=device),
            device=device,
            precision=precision_of_run(config, resume_from, device, ranks),
            ranks=ranks,
        )

    @classmethod
    def from_checkpoint(cls, config: dict[str, Any], checkpoint: Path, data: Dataset | None = None) -> Task:
        """Return the task of a checkpoint and its config, ready to predict; nothing is downloaded.

        Without `data` it has no splits; conditions that need the data read it.
        """
        device = pick_device(config["device"])

        def read_splits() -> Mapping[str, Sequence[Example]]:
            return (data or cls.read_data(config, checkpoint)).splits

        vocabulary = cls.load_vocabulary(config, checkpoint)
        return cls(
            config,
            data or NO_DATA,
            vocabulary,
            trained_model(cls.build_from_config, config, vocabulary, checkpoint, device),
            build_conditions(config, read_splits=read_splits, run=run_of(checkpoint), device=device),
            device=device,
            precision=inference_precision(Precision(config["trainer"]["precision"]), device),
            ranks=SINGLE_PROCESS,
        )

    def with_weights(self, checkpoint: Path) -> Task:
        """Return this task with the weights of one of its checkpoints, ready to predict."""
        task = copy.copy(self)
        model = trained_model(self.build_from_config, self.config, self.vocabulary, checkpoint, self.device)
        precision = inference_precision(Precision(self.config["trainer"]["precision"]), self.device)
        task.pipeline = self._pipeline(model, precision)
        return task

    # ------------------------------------------------------------------------------- data and vocabulary

    @classmethod
    @abstractmethod
    def needs_data_tags(cls, config: dict[str, Any], run: Path | None) -> bool:
        """Whether training images need the tags that the data itself has for them."""

    @classmethod
    def read_data(cls, config: dict[str, Any], checkpoint: Path | None = None) -> Dataset:
        """Return the data of a config; `checkpoint` is the one that the config comes from, if any.

        Raises `UserError` if a split has no image.
        """
        run = None if checkpoint is None else run_of(checkpoint)
        tags = cls.needs_data_tags(config, run)
        return read_data(config, with_tags=tags, stored=checkpoint is not None)

    def with_targets(self, data: Dataset) -> Dataset:
        """Return the data with the training targets of this task as references."""
        return data

    @classmethod
    @abstractmethod
    def build_vocabulary(cls, config: dict[str, Any], data: Dataset, saved: Path | None) -> Any:
        """Return the vocabulary saved in the folder `saved`, else one built from the training images."""

    @classmethod
    def check_vocabulary(cls, config: dict[str, Any]) -> None:
        """Raise `UserError` for settings of a new vocabulary that no data could satisfy."""
        once = {"min_count": min(config["vocab"]["min_count"], 1)} if "min_count" in config["vocab"] else {}
        build("vocab", config["vocab"] | once, captions=["word"])

    @classmethod
    def vocabulary_without_data(cls, config: dict[str, Any]) -> Any:
        """Return the vocabulary of a config where no data is needed to know it, else None."""
        return None

    @classmethod
    @abstractmethod
    def load_vocabulary(cls, config: dict[str, Any], folder: Path) -> Any:
        """Return the vocabulary that a checkpoint has."""

    @classmethod
    def build_model(cls, config: dict[str, Any], vocabulary: Any, resume_from: Path | None) -> Any:
        """Return the model that training starts with; see `initial_model`."""
        return initial_model(cls.build_from_config, config, vocabulary, resume_from)

    @staticmethod
    @abstractmethod
    def max_length(model: Any) -> int:
        """Return the maximum sequence length of a model, in tokens."""

    def examples(self, split: str) -> Sequence[Example]:
        """Return the examples of a split; `UserError` names the splits there are."""
        if split not in self.data.splits:
            raise UserError(f"split {split!r} does not exist; allowed: {', '.join(self.data.splits)}")
        return self.data.splits[split]

    @property
    def test_splits(self) -> list[str]:
        """The names of the splits to be scored after training, those that begin with "test"."""
        return [name for name in self.data.splits if name.startswith("test")]

    # ------------------------------------------------------------------------------------------ training

    @abstractmethod
    def objective(self) -> Objective:
        """Return the loss."""

    @abstractmethod
    def summary(self) -> Summary:
        """Return what the log and result.json report on the vocabulary."""

    def tracker(self, run: RunFolder) -> Tracker:
        """Return where training logs to: `run` and what the config names; of other ranks than the main one, `run`."""
        files = FileTracker(run)
        if not self.ranks.is_main:
            return files
        config = to_plain(self.config)
        mirrors = (
            build("tracking", chosen, folder=run, config=config) for chosen in trackers_of(self.config)
        )
        return Trackers([files, *mirrors])

    def preflight_warnings(self, *, resumed: bool) -> Iterator[Notice]:
        """Yield warnings about the training settings, each with its log level."""
        yield from about_initial_weights(self.config, self.model, resumed=resumed)

    def data_warnings(self) -> Iterator[Notice]:
        """Yield warnings about the data, each with its log level."""
        return iter(())

    # ---------------------------------------------------------------------------- evaluation and prediction

    @property
    def decodings_per_image(self) -> int:
        """How often an image is decoded to get its result."""
        return 1

    @abstractmethod
    def predict_batches(self, batches: Iterable[Batch]) -> dict[str, Any]:
        """Return {image id: prediction} in eval mode; the model's mode is as before after it."""

    @abstractmethod
    def score_predictions(
        self, examples: Sequence[Example], predictions: Mapping[str, Any]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Return scores of the predictions of validation images, and signs of health."""

    @abstractmethod
    def as_text(self, prediction: Any) -> str:
        """Return a prediction as people read it."""

    @abstractmethod
    def decode(self, inputs: Inputs) -> object:
        """Decode one batch in the run's own way."""

    @abstractmethod
    def evaluate(
        self,
        images: EvaluationSet,
        folder: RunFolder,
        *,
        batch_size: int,
        command: str,
        choose_threads: bool = False,
        **options: Unpack[EvaluationOptions],
    ) -> list[str]:
        """Score the model on `images`, write everything into the run's folder; return the labels of its scores.

        `images` are made by `evaluation_set`. `UserError` for `options` that mean nothing here.
        With `choose_threads` the first batch is used to choose the fastest number of threads.
        """

    @abstractmethod
    def predictor(self, **options: Unpack[PredictionOptions]) -> Predictor:
        """Return what predicts for other images; `UserError` for `options` that mean nothing here."""
