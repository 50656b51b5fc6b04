"""Tag models: `easycap train task=tags tagger=cnn` learns which tags images have; their evaluation."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from easycap.beside import make_tag_vocabulary
from easycap.experiment import Experiment
from easycap.metrics.scoring import Scores
from easycap.metrics.tagging import per_tag, tag_scores
from easycap.objectives.tagging import TagLoss
from easycap.tracking.run_folder import RunFolder
from easycap.training.checkpoint import task_of
from easycap.training.hardware import Precision, autocast
from easycap.training.tag_validation import TagValidator, likely_text, probabilities_of_batches
from easycap.types import Dataset, Example, Score
from easycap.vocab.tags import TagVocabulary

_SHOWN_PER_GROUP = 12


class TagExperiment(Experiment):
    """An experiment whose model says tags: an image's own tags stand in the place of its captions.

    `captioner` is a TagModel and `vocabulary` a TagVocabulary; everything about words beside an image, generation and
    captions is without meaning here.
    """

    @cached_property
    def read(self) -> Dataset:
        """The data as its source gives it, with captions."""
        return self.read_data()

    @cached_property
    def vocabulary(self) -> TagVocabulary:
        if self.stored is not None:
            return TagVocabulary.load(self.stored)
        return make_tag_vocabulary(self.config["tag_vocab"], self.read.splits["train"])

    @cached_property
    def dataset(self) -> Dataset:
        splits = {
            split: [self._tagged(example) for example in examples]
            for split, examples in self.read.splits.items()
        }
        return self.read._replace(splits=splits, scorers=())

    @property
    def _with_tags(self) -> bool:
        return self.config["tag_vocab"]["name"] == "data"

    def _tagged(self, example: Example) -> Example:
        # Not in the order of the image's own: a sequence that is cut keeps the frequent tags.
        tags = self.vocabulary.by_frequency(self.vocabulary.of(example))
        return Example(example.id, example.image, (", ".join(tags),), tuple(tags), example.annotations)

    @property
    def max_words(self) -> int:
        return self.captioner.tagger.max_words

    @cached_property
    def objective(self) -> TagLoss:
        return TagLoss()

    def validator(self) -> TagValidator:
        settings = {k: v for k, v in self.config["validation"].items() if k != "name"}
        return TagValidator(
            **settings,
            examples=self.examples("val"),
            make_batches=self.batches,
            objective=self.objective,
            generator=None,
            refinement=None,
            vocabulary=self.vocabulary,
            score=self._score_epoch,
            ranks=self.ranks,
        )

    def _score_epoch(
        self, examples: Sequence[Example], captions: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, float], dict[str, float]]:
        truth = {example.id: example.tags for example in examples}
        scores = tag_scores(captions, truth, self.vocabulary.tags, split="val", intervals=False)
        return {name: score.value for name, score in scores.items()}, {}

    def probabilities(self, examples: Sequence[Example], batch_size: int) -> dict[str, np.ndarray]:
        """Return {id: the probability of each tag (tags,)}; several ranks share the batches."""
        batches = self.batches(self.ranks.part(examples, batch_size), batch_size)
        precision = Precision(self.config["trainer"]["precision"])
        found = probabilities_of_batches(
            self.captioner,
            batches,
            device=self.device,
            autocast=partial(autocast, self.device, precision),
        )
        found = self.ranks.merge(found)
        return {example.id: found[example.id] for example in examples}


def experiment_class(config: dict[str, Any]) -> type[Experiment]:
    """Return the kind of experiment that a checked config's task is."""
    return TagExperiment if config["task"] == "tags" else Experiment


def experiment_of(checkpoint: Path, *, device: str) -> Experiment:
    """Return the experiment a checkpoint belongs to, of whatever task, as `Experiment.from_checkpoint` does."""
    try:
        kind = TagExperiment if task_of(checkpoint) == "tags" else Experiment
    except (OSError, ValueError):  # what is wrong with it, from_checkpoint says
        kind = Experiment
    return kind.from_checkpoint(checkpoint, device=device)


def evaluate_tags(
    experiment: TagExperiment, folder: RunFolder, split: str, *, batch_size: int, command: str
) -> dict[str, Any]:
    """Score a tag model on `split`, write its tags, scores per image and per tag, and samples; return result.json."""
    examples, tags = experiment.examples(split), experiment.vocabulary.tags
    found = experiment.probabilities(examples, batch_size)
    truth = {example.id: example.tags for example in examples}
    scores = tag_scores(found, truth, tags, split=split)
    folder.write_per_image(split, {name: score.per_image for name, score in scores.items()})
    folder.write_samples(split, _samples(examples, found, tags, scores))
    return folder.update_result(
        {
            "scores": {split: Scores(scores).to_dict()},
            "tags": {split: per_tag(found, truth, tags)},
            "commands": {split: command},
        }
    )


def _samples(
    examples: Sequence[Example],
    found: Mapping[str, np.ndarray],
    tags: Sequence[str],
    scores: Mapping[str, Score],
) -> dict[str, list[dict]]:
    rows = [
        {
            "id": example.id,
            "image": example.image,
            "caption": likely_text(found[example.id], tags),
            "references": [", ".join(example.tags)],
            "scores": {name: score.per_image[example.id] for name, score in scores.items()},
        }
        for example in examples
    ]
    ranked = sorted(rows, key=lambda row: row["scores"]["mAP"])
    chosen = random.Random(0).sample(rows, min(_SHOWN_PER_GROUP, len(rows)))
    return {"random": chosen, "best": ranked[::-1][:_SHOWN_PER_GROUP], "worst": ranked[:_SHOWN_PER_GROUP]}
