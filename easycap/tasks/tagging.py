"""Tagging: a model that predicts which tags an image has; `easycap train task=tags tagger=cnn`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from PIL import Image

from easycap.conditioning.tags import check_tag_vocabulary, make_tag_vocabulary
from easycap.data.loader import show_images
from easycap.errors import UserError
from easycap.evaluation.evaluation_set import EvaluationSet
from easycap.evaluation.gallery import gallery
from easycap.evaluation.groups import record_groups, score_groups
from easycap.evaluation.pipeline import Pipeline
from easycap.metrics.scoring import Scores
from easycap.metrics.tag_scores import per_tag, tag_scores
from easycap.models.build import build_tag_model
from easycap.objectives.tag_loss import TagLoss
from easycap.runs.run_folder import RunFolder
from easycap.tasks.base import Summary, Task
from easycap.tasks.other_sets import pipeline_for, record_other_set
from easycap.tasks.predictor import EvaluationOptions, Prediction, PredictionOptions, Predictor
from easycap.types import Batch, Dataset, Example, Inputs
from easycap.vocab.tags import TagVocabulary


class TaggingTask(Task):
    """Trains and evaluates a TagModel: an image's tags take the place of its captions."""

    build_from_config = staticmethod(build_tag_model)
    default_metric = "mAP"
    doing = "tagging"

    @classmethod
    def needs_data_tags(cls, config: dict[str, Any], run: Path | None) -> bool:
        """Whether the vocabulary of tags is the one of the data."""
        return config["tag_vocab"]["name"] == "data"

    @classmethod
    def build_vocabulary(cls, config: dict[str, Any], data: Dataset, saved: Path | None) -> TagVocabulary:
        """Return the saved tags, else those that the training images have."""
        if saved is not None:
            return cls.load_vocabulary(config, saved)
        return make_tag_vocabulary(config["tag_vocab"], data.splits["train"])

    @classmethod
    def check_vocabulary(cls, config: dict[str, Any]) -> None:
        """Raise `UserError` for settings of the tags that no data could satisfy."""
        super().check_vocabulary(config)
        check_tag_vocabulary(config["tag_vocab"])

    @classmethod
    def load_vocabulary(cls, config: dict[str, Any], folder: Path) -> TagVocabulary:
        """Return the tags of a tag model's checkpoint."""
        return TagVocabulary.load(folder)

    @staticmethod
    def max_length(model: Any) -> int:
        """Return the longest row of tags that the tagger learns from, in tokens with bos."""
        return model.tagger.max_length

    def with_targets(self, data: Dataset) -> Dataset:
        """Return the data with each image's known tags as its one reference."""
        splits = {
            split: [self._tagged(example) for example in examples] for split, examples in data.splits.items()
        }
        return data._replace(splits=splits, scorers=())

    def _tagged(self, example: Example) -> Example:
        # Not in the order of the image's own: a sequence that is cut keeps the frequent tags.
        tags = self.vocabulary.by_frequency(self.vocabulary.of(example))
        return replace(example, references=(", ".join(tags),), tags=tuple(tags))

    # ------------------------------------------------------------------------------------------ training

    def objective(self) -> TagLoss:
        """Return the tagger's own loss."""
        return TagLoss()

    def score_predictions(
        self, examples: Sequence[Example], predictions: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Return the scores of the tags' probabilities, 0..1; of health nothing is measured."""
        truth = {example.id: example.tags for example in examples}
        scores = tag_scores(predictions, truth, self.vocabulary.tags, split="val", intervals=False)
        return {name: score.value for name, score in scores.items()}, {}

    def summary(self) -> Summary:
        """Return the number of tags."""
        count = len(self.vocabulary.tags)
        return Summary(f"{count} tags", {"tags": count})

    # ---------------------------------------------------------------------------- evaluation and prediction

    @torch.no_grad()
    def predict_batches(self, batches: Iterable[Batch]) -> dict[str, np.ndarray]:
        """Return {image id: the probability of each tag (tags,)}, in eval mode."""
        was_training = self.model.training
        self.model.eval()
        found: dict[str, np.ndarray] = {}
        for batch in batches:
            with self.pipeline.autocast():
                rows = self.model.probabilities(batch.inputs.to(self.device))
            found.update(zip(batch.image_ids, rows.cpu().numpy(), strict=True))
        self.model.train(was_training)
        return found

    def as_text(self, prediction: np.ndarray) -> str:
        """Return the likely tags with their probabilities."""
        return likely_text(prediction, self.vocabulary.tags)

    def decode(self, inputs: Inputs) -> object:
        """Return the probability of each tag (N, tags)."""
        return self.model.probabilities(inputs)

    def probabilities(
        self, pipeline: Pipeline, examples: Sequence[Example], batch_size: int
    ) -> dict[str, np.ndarray]:
        """Return {id: the probability of each tag (tags,)}; several ranks share the batches."""
        batches = pipeline.batches(self.ranks.shard(examples, batch_size), batch_size)
        self.model.fold_encoder(len(examples))
        found = self.predict_batches(show_images(batches, self.doing, shown=self.ranks.is_main))
        found = self.ranks.all_gather_dict(found)
        return {example.id: found[example.id] for example in examples}

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
        """Score the tags of `images`; write their scores per image and per tag, and samples."""
        _refuse(options, folder.path)
        pipeline = pipeline_for(self.pipeline, images)
        label, examples, tags = images.label, images.examples, self.vocabulary.tags
        if choose_threads:
            pipeline.choose_threads_for(self.decode, examples, batch_size)
        found = self.probabilities(pipeline, examples, batch_size)
        if not self.ranks.is_main:
            return [label]
        truth = {example.id: example.tags for example in examples}
        scores = Scores(tag_scores(found, truth, tags, split=label))
        folder.write_per_image(label, {name: score.per_image for name, score in scores.items()})
        texts = {image_id: likely_text(one, tags) for image_id, one in found.items()}
        samples = gallery(examples, texts, scores, rank_by=self.default_metric)
        folder.write_samples(label, samples, images=label if images.other else "")
        folder.update_result(
            {
                "scores": {label: scores.to_dict()},
                "tags": {label: per_tag(found, truth, tags)},
                "commands": {label: command},
            }
        )
        record_groups(folder, label, score_groups(examples, images.group_by, label, scores))
        record_other_set(folder, images)
        return [label]

    def predictor(self, **options: Unpack[PredictionOptions]) -> TagPredictor:
        """Return what tags photos; a tag model has no `options`."""
        _refuse(options, "this run")
        return TagPredictor(self.pipeline, self.vocabulary.tags)


class TagPredictor(Predictor):
    """Tags photos, one by one and in full precision: the same tags on every machine, as a captioner gets them."""

    doing = "tagging"

    def __init__(self, pipeline: Pipeline, tags: Sequence[str]) -> None:
        self.pipeline, self.transform, self.tags = pipeline, pipeline.transform, tags

    def __call__(self, examples: Sequence[Example]) -> list[Prediction | UserError]:
        """Return the tags of each image with their probabilities, or why it could not be read."""
        return [self._prediction(example) for example in examples]

    def prepare(self, examples: Sequence[Example], *, ahead: int) -> None:
        """Fold BatchNorm, if `ahead` images are worth it."""
        self.pipeline.model.fold_encoder(ahead)

    def check_attention(self) -> None:
        """Raise `UserError`: a tag model reads no words one by one."""
        raise UserError("this run predicts tags, not captions: no attention to draw")

    def draw_attention(self, example: Example, prediction: Prediction) -> Image.Image:
        """Never called; see `check_attention`."""
        raise AssertionError("check_attention says why not")

    def _prediction(self, example: Example) -> Prediction | UserError:
        try:
            image = self.transform(example.image)
        except UserError as error:
            return error
        found = self._probabilities(image)
        row = {"tags": dict(zip(self.tags, map(float, found), strict=True))}
        likely = ", ".join(self.tags[index] for index in _likely(found))
        return Prediction([likely_text(found, self.tags)], row, likely)

    @torch.no_grad()
    def _probabilities(self, image: torch.Tensor) -> np.ndarray:
        """pixels (3,S,S) uint8 -> (tags,), as coarse as what a captioner's cache has."""
        device = self.pipeline.device
        with torch.autocast(device.type, enabled=False):
            found = self.pipeline.model.probabilities(Inputs(image.unsqueeze(0).to(device)))
        return found[0].half().float().cpu().numpy()


def likely_text(probabilities: np.ndarray, tags: Sequence[str]) -> str:
    """Return the likely tags with their probabilities: "dog 0.98, bark 0.71"."""
    return ", ".join(f"{tags[index]} {probabilities[index]:.2f}" for index in _likely(probabilities))


def _likely(probabilities: np.ndarray, least: float = 0.5) -> np.ndarray:
    """The indices of the tags of probability `least` and more, the likeliest first and one at least."""
    order = np.argsort(-probabilities, kind="stable")
    return order[: max(1, int((probabilities >= least).sum()))]


def _refuse(options: Mapping[str, Any], run: Path | str) -> None:
    """Raise `UserError` for options that are for captions."""
    if options:
        raise UserError(f"{run} predicts tags, not captions: leave out {', '.join(options)}")
