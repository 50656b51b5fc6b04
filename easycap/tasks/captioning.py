"""Captioning: a model that writes captions of images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

import easycap.vocab
from easycap.conditioning.conditions import build_conditions
from easycap.config.instantiate import (
    build,
    needs_captions,
    segmenter_of,
    special_ids,
    stored_vocabulary,
    vocabulary_class,
)
from easycap.config.schema import option_from_text, split_settings, to_plain
from easycap.data.example_table import Captions
from easycap.errors import UserError
from easycap.evaluation.evaluate import CaptionEvaluator
from easycap.evaluation.evaluation_set import EvaluationSet
from easycap.generation.generate import Refinement, captions_of_batches, decode, only_caption
from easycap.metrics import DocumentFrequencies, caption_health, score
from easycap.metrics.clip_score import ClipScore
from easycap.metrics.health import normalized
from easycap.metrics.rewards import Rewards
from easycap.metrics.scoring import DEFAULT_SCORERS
from easycap.models.build import build_captioner
from easycap.runs.run_folder import RunFolder
from easycap.tasks.base import Summary, Task
from easycap.tasks.datasets import document_frequencies
from easycap.tasks.nearest_captions import supplied_to_decoding
from easycap.tasks.other_sets import pipeline_for, record_other_set
from easycap.tasks.photo_captioning import NO_DRAFT, CaptionPredictor
from easycap.tasks.preflight import (
    Notice,
    about_cut_captions,
    about_rewards,
    about_scripts,
    about_unknown_words,
)
from easycap.types import Batch, Dataset, Example, Generator, Inputs, Objective, Scorer, Vocabulary
from easycap.utils import paths
from easycap.utils.cache import cached_dir, digest_of
from easycap.vocab.survey import Survey, survey


class CaptioningTask(Task):
    """Trains and evaluates a Captioner, which writes captions of images."""

    build_from_config = staticmethod(build_captioner)
    default_metric = "CIDEr-D"
    doing = "captioning"

    # ------------------------------------------------------------------------------- data and vocabulary

    @classmethod
    def needs_data_tags(cls, config: dict[str, Any], run: Path | None) -> bool:
        """Whether one of the text conditions learns from the tags that the data has."""
        conditions = build_conditions(config, read_splits=dict, run=run, device=torch.device("cpu"))
        return conditions.needs_data_tags

    @classmethod
    def build_vocabulary(cls, config: dict[str, Any], data: Dataset, saved: Path | None) -> Vocabulary:
        """Return the saved vocabulary, else one of the training captions, from a cache if it was built before."""
        if saved is not None:
            return cls.load_vocabulary(config, saved)
        if not needs_captions(vocabulary_class(config)):
            return build("vocab", config["vocab"])
        captions = Captions(data.splits["train"])
        settings = json.dumps(to_plain(config["vocab"]), sort_keys=True)
        code = Path(easycap.vocab.__file__).parent
        folder = paths.cache_dir() / "vocab" / digest_of(chain([settings], captions), code=code)
        # Every run and every run of a sweep wants the same: one makes it.
        cached_dir(folder, lambda new: build("vocab", config["vocab"], captions=captions).save(new))
        return vocabulary_class(config).load(folder)

    @classmethod
    def load_vocabulary(cls, config: dict[str, Any], folder: Path) -> Vocabulary:
        """Return the vocabulary of a captioner's checkpoint."""
        return stored_vocabulary(config, folder)

    @staticmethod
    def max_length(model: Any) -> int:
        """Return the longest caption that the decoder can read, in tokens with bos."""
        return model.decoder.max_length

    @cached_property
    def training_captions(self) -> Mapping[str, int]:
        """How often each training caption occurs, as `normalized` counts them: once for all splits to be scored."""
        return normalized(
            Captions(self.examples("train")),
            segmenter_of(self.config),
        )

    def document_frequencies(self, *, eos: bool = False) -> DocumentFrequencies:
        """Return those of the training references, read if the task has no data; with `eos` these end with eos."""
        return document_frequencies(self.config, self.data, eos=eos)

    @cached_property
    def _validation_frequencies(self) -> DocumentFrequencies:
        """Read once: every validation and every test split needs them."""
        return self.document_frequencies()

    # ------------------------------------------------------------------------------------------ training

    def objective(self) -> Objective:
        """Return the loss that the config names."""
        return build(
            "objective",
            self.config["objective"],
            vocabulary=self.vocabulary,
            make_rewards=self._rewards,
            **special_ids(self.vocabulary),
        )

    def _rewards(self, weights: Mapping[str, float], eos: bool) -> Rewards:
        """Return what captions of training images are rewarded for."""
        examples = self.examples("train")
        return Rewards(
            weights,
            eos=eos,
            references={example.id: example.references for example in examples},
            annotations={example.id: example.annotations for example in examples},
            scorers=(*DEFAULT_SCORERS, *self.data.scorers),
            df=self.document_frequencies(eos=eos),
            segmenter=segmenter_of(self.config),
        )

    def score_predictions(
        self, examples: Sequence[Example], predictions: Mapping[str, str]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Return the scores of one caption per image, 0..1, and signs of health."""
        scores = score(
            predictions,
            {example.id: example.references for example in examples},
            annotations={example.id: example.annotations for example in examples},
            scorers=(*DEFAULT_SCORERS, *self.data.scorers),
            df=self._validation_frequencies,
            intervals=False,
            segmenter=segmenter_of(self.config),
        )
        health = caption_health(
            list(predictions.values()), unknown="<unk>", segmenter=segmenter_of(self.config)
        )
        return {name: value.value for name, value in scores.items()}, health

    @cached_property
    def surveys(self) -> dict[str, Survey]:
        """Per split how the vocabulary and the decoder's positions fit its references."""
        return {
            split: survey(
                self.vocabulary,
                Captions(examples),
                max_length=self.pipeline.max_length,
            )
            for split, examples in self.data.splits.items()
        }

    def summary(self) -> Summary:
        """Return the size of the vocabulary and how well it covers each split."""
        size, surveys = len(self.vocabulary), self.surveys
        fields = {
            name: {split: getattr(found, name) for split, found in surveys.items()} for name in Survey._fields
        }
        text = f"{size} words ({surveys['val'].coverage:.1%} of those in val)"
        return Summary(text, {"size": size, **fields})

    def preflight_warnings(self, *, resumed: bool) -> Iterator[Notice]:
        """Yield also what is doubtful about rewards."""
        yield from super().preflight_warnings(resumed=resumed)
        yield from about_rewards(self.config)

    def data_warnings(self) -> Iterator[Notice]:
        """Yield what the decoder or the vocabulary loses of the training captions."""
        yield from about_unknown_words(self.config, self.surveys["train"])
        yield from about_cut_captions(self.config, self.surveys["train"], self.pipeline.max_length)
        captions = Captions(self.examples("train"))
        yield from about_scripts(self.config, self.vocabulary, captions, segmenter_of(self.config))

    # ---------------------------------------------------------------------------- evaluation and prediction

    def generator(self, decoding: str | None = None) -> Generator:
        """Return the generator of `decoding` (e.g. beam,num_beams=3), by default the config's."""
        settings = self.config["decoding"]
        if decoding is not None:
            settings = option_from_text("decoding", decoding, seed=self.config["seed"])
        supplied = supplied_to_decoding(self.config, self.data, self.pipeline)
        return build("decoding", settings, **supplied)

    def refinement(self, rounds: int | None = None) -> Refinement:
        """Return how often captions are fed back as drafts: `rounds`, by default the config's.

        Raises `UserError` if there are rounds and the captioner reads no draft.
        """
        rounds = build("refine", self.config["refine"] | ({} if rounds is None else {"rounds": rounds}))
        if rounds and "draft" not in self.conditions:
            raise UserError(NO_DRAFT)
        return Refinement(rounds, self.pipeline.with_draft)

    @property
    def decodings_per_image(self) -> int:
        """One, and one for each round of refinement."""
        return 1 + self.refinement().rounds

    def predict_batches(self, batches: Iterable[Batch]) -> dict[str, str]:
        """Return {image id: caption} of the last round, decoded with the config's settings."""
        rounds = captions_of_batches(
            self.model,
            batches,
            self.generator(),
            self.vocabulary,
            device=self.device,
            autocast=self.pipeline.autocast,
            refinement=self.refinement(),
        )
        return {image_id: only_caption(texts) for image_id, texts in rounds[-1].items()}

    def as_text(self, prediction: str) -> str:
        """Return the caption itself."""
        return prediction

    def decode(self, inputs: Inputs) -> object:
        """Caption one batch of inputs."""
        return decode(self.model, inputs, self.generator())

    def evaluate(
        self,
        images: EvaluationSet,
        folder: RunFolder,
        *,
        batch_size: int,
        command: str,
        choose_threads: bool = False,
        decoding: str | None = None,
        samples: int | None = None,
        rounds: int | None = None,
        metrics: Sequence[str] = (),
        clip: Path | None = None,
    ) -> list[str]:
        """Caption and score `images`; see `CaptionEvaluator`.

        `decoding`, with `samples` captions per image, and `rounds` replace the run's own.
        `metrics` are further scorers, `clip` is a folder with a CLIP for CLIPScore.
        """
        if samples is not None:
            decoding = f"{decoding or 'sample'},num_samples={samples}"
        generator = self.generator(decoding)
        label = f"{images.label}@{','.join(split_settings(decoding))}" if decoding else images.label
        scorers: list[str | Scorer] = [name for name in metrics if name not in DEFAULT_SCORERS]
        if clip is not None:
            by_id = {example.id: example.image for example in images.examples}
            scorers.append(ClipScore(model=clip, images=by_id, device=str(self.device)))
        pipeline = pipeline_for(self.pipeline, images)
        if choose_threads:
            pipeline.choose_threads_for(
                partial(decode, self.model, generator=generator), images.examples, batch_size
            )
        read = bool(self.data.splits)  # to score on another set the own one need not be there
        evaluate = CaptionEvaluator(
            pipeline=pipeline,
            config=self.config,
            generator=generator,
            refinement=self.refinement(rounds),
            own_rounds=self.refinement().rounds,
            scorers=scorers,
            segmenter=segmenter_of(self.config),
            document_frequencies=lambda: self._validation_frequencies if read else None,
            training_captions=lambda: self.training_captions if read else None,
            ranks=self.ranks,
        )
        labels = evaluate(images, folder, label=label, batch_size=batch_size, command=command)
        if self.ranks.is_main:
            record_other_set(folder, images, self.vocabulary, segmenter_of(self.config))
        return labels

    def predictor(
        self,
        *,
        decoding: str | None = None,
        draft: str | None = None,
        rounds: int | None = None,
        tags: str | None = None,
    ) -> CaptionPredictor:
        """Return a predictor for photos; `decoding` and `rounds` override the run's, `draft` and `tags` are texts."""
        return CaptionPredictor(
            self.pipeline,
            self.config,
            self.generator(decoding),
            self.refinement(rounds),
            draft=draft,
            tags=tags,
        )
