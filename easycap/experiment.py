"""An experiment: everything a checked config stands for, each part built when it is first asked for."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

import easycap.metrics
import easycap.vocab
from easycap import paths
from easycap.beside import WordsBeside
from easycap.build import (
    build,
    build_dataset,
    initial_checkpoint,
    model_builder,
    model_for_encoder,
    model_to_be_filled,
    needs_captions,
    precomputed_features,
    special_ids,
    vocabulary_class,
    with_architecture,
)
from easycap.config import check_stored, to_plain
from easycap.data.features import FeatureCache, FrozenView, fingerprint
from easycap.data.loader import Batches, TrainLoader, context_ids, evaluation_batches, together
from easycap.data.transforms import Augmented, Transform
from easycap.generation.captions import Refinement
from easycap.metrics import DocumentFrequencies, caption_health, score
from easycap.metrics.rewards import Rewards
from easycap.models.captioner import Captioner
from easycap.runs import run_of
from easycap.shared import digest_of, made_once
from easycap.training.checkpoint import (
    CONFIG,
    ENCODER,
    check_weights,
    load_encoder,
    load_weights,
    read_progress,
    task_of,
)
from easycap.training.hardware import autocast, pick_device
from easycap.training.optim import Optimization
from easycap.training.ranks import ALONE, Ranks
from easycap.training.trainer import Trainer
from easycap.training.validation import Validator
from easycap.types import (
    Dataset,
    Example,
    Features,
    Generator,
    Inputs,
    Objective,
    Tracker,
    View,
    Vocabulary,
)

logger = logging.getLogger(__name__)

TEXT_SCORERS = ("bleu", "rouge_l", "cider_d")
NO_TAGS = (
    "this captioner reads no tags (tags=none), so that none can be given: train one with tags, e.g. tags=predicted "
    "tags.run=RUN"
)
NO_DRAFT = (
    "this captioner reads no draft (draft=none), so that none can be given or fed back: train one with a draft, e.g. "
    "draft=own"
)


class Experiment:
    """Everything a checked config stands for, each part built when it is first asked for.

    With `checkpoint`, a folder written by training, the vocabulary and the weights come from there and nothing is
    fetched from elsewhere. With `start`, a checkpoint that training is to go on from, nothing is fetched either; its
    weights are left to the training. Otherwise a config's `init_from` gives a training its first weights and words.
    """

    def __init__(
        self,
        config: dict[str, Any],
        checkpoint: Path | None = None,
        *,
        start: Path | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.config = with_architecture(config)
        self.checkpoint, self.ranks = checkpoint, ranks
        self.initial = None if checkpoint or start else initial_checkpoint(config)
        # Of a run of the other task only the encoder is of use.
        self.encoder_alone = self.initial is not None and task_of(self.initial) != config["task"]
        self.start, self.stored = start, checkpoint or start or (None if self.encoder_alone else self.initial)

    @classmethod
    def from_checkpoint(cls, folder: Path, *, device: str, data_of: Experiment | None = None) -> Experiment:
        """Return the experiment a checkpoint belongs to, on another device, for evaluation.

        `data_of` lends the data it has read already, and its ranks. Raises `ValueError` if the folder holds no
        checkpoint.
        """
        if not (folder / CONFIG).is_file():
            raise ValueError(f"{folder} holds no checkpoint ({CONFIG} is missing)")
        try:
            stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{folder / CONFIG} is damaged ({error}); use another checkpoint") from None
        experiment = cls(check_stored(OmegaConf.create(stored)) | {"device": device}, folder)
        if data_of is not None:
            experiment.dataset, experiment.ranks = data_of.dataset, data_of.ranks
            lent = ("training_df", "beside")
            vars(experiment).update({k: v for k, v in vars(data_of).items() if k in lent})
        return experiment

    # ------------------------------------------------------------------------------------------- data

    @cached_property
    def dataset(self) -> Dataset:
        return self.read_data()

    def read_data(self) -> Dataset:
        """Return the data as its source gives it; `ValueError` if a split has no image."""
        dataset = build_dataset(self.config, with_tags=self._with_tags)
        for split, examples in dataset.splits.items():
            if not examples:
                raise ValueError(
                    f"data={dataset.name}: no image of the {split} split can be used; `easycap data check` says why"
                )
        if self.config["trainer"]["overfit_batch"]:
            few = dataset.splits["train"][: self.config["trainer"]["batch_size"]]
            return dataset._replace(splits=dict.fromkeys(("train", "val", "test"), few))
        return dataset

    @property
    def _with_tags(self) -> bool:
        """Whether training images need the tags that the data itself has for them."""
        return self.beside.reads_tags_of_data

    def examples(self, split: str) -> list[Example]:
        """Return the examples of a split; `ValueError` names the splits there are."""
        if split not in self.dataset.splits:
            raise ValueError(f"split {split!r} does not exist; allowed: {', '.join(self.dataset.splits)}")
        return self.dataset.splits[split]

    @cached_property
    def vocabulary(self) -> Vocabulary:
        kind = vocabulary_class(self.config)
        if self.stored is not None:
            return kind.load(self.stored)
        if not needs_captions(kind):
            return build("vocab", self.config["vocab"])
        captions = [caption for example in self.examples("train") for caption in example.references]
        settings = json.dumps(to_plain(self.config["vocab"]), sort_keys=True)
        code = Path(easycap.vocab.__file__).parent
        folder = paths.cache_dir() / "vocab" / digest_of([settings, *captions], code=code)
        # Every run and every cell of a sweep wants the same: one makes it.
        made_once(folder, lambda new: build("vocab", self.config["vocab"], captions=captions).save(new))
        return kind.load(folder)

    @cached_property
    def beside(self) -> WordsBeside:
        """The words beside images: tags and drafts."""
        checkpoint = self.checkpoint or self.start
        run = None if checkpoint is None else run_of(checkpoint)
        return WordsBeside(self.config, splits=lambda: self.dataset.splits, run=run, device=self.device)

    @cached_property
    def training_df(self) -> DocumentFrequencies:
        """Document frequencies of the training references: they make CIDEr-D of any subset comparable."""
        return self._document_frequencies(eos=False)

    def _document_frequencies(self, *, eos: bool) -> DocumentFrequencies:
        """Return those of the training references, with `eos` of references that end with an end token."""
        name = "document_frequencies_eos" if eos else "document_frequencies"
        documents = [example.references for example in self.examples("train")]
        texts = ("\0".join(references) + "\0" for references in documents)
        code = Path(easycap.metrics.__file__).parent
        folder = paths.cache_dir() / name / digest_of(texts, code=code)
        made_once(
            folder,
            lambda new: DocumentFrequencies.from_references(documents, source="train", eos=eos).save(
                new / "train.npz"
            ),
        )
        return DocumentFrequencies.load(folder / "train.npz")

    @cached_property
    def transform(self) -> Transform:
        return Transform(self.captioner.encoder.preprocessing)

    @cached_property
    def view(self) -> View:
        """What the model gets of an image: its pixels, or after `cache_features`, or made elsewhere, its features."""
        return precomputed_features(self.config["encoder"]) or self.transform

    @property
    def training_view(self) -> View:
        """What training alone gets of an image: `view`, or random parts of it where the config wants that."""
        crop, flip = self.trainer.crop, self.trainer.flip
        if crop is None and not flip:
            return self.view
        return Augmented(self.transform, crop=crop, flip=flip, seed=self.config["seed"])

    def cache_features(self) -> None:
        """Let training see cached features while the encoder is frozen, if the config wants that; see FeatureCache.

        The encoder must be where it will run.
        """
        live_from = self.trainer.unfreeze_encoder_at_epoch
        epoch = read_progress(self.start)["epoch"] if self.start is not None else 0
        if not self.trainer.cache_features or (live_from is not None and epoch >= live_from):
            return
        if self.start is not None:  # the captioner's weights are left to the training that goes on
            load_weights(self.captioner, self.start)
        encoder, precision = self.captioner.encoder, self.trainer.precision
        settings = {k: v for k, v in self.config["encoder"].items() if k not in ("pretrained", "weights")}
        code = digest_of([], code=Path(inspect.getfile(type(encoder))).parent)
        made_by = fingerprint(
            encoder.state_dict().items(), settings, encoder.preprocessing, precision.name, code
        )

        @torch.no_grad()
        def encode(images: torch.Tensor) -> Features:
            with autocast(self.device, precision):
                return self.captioner.encode(images.to(self.device))

        self.captioner.eval()
        validated = self.examples("val")[: self.config["validation"]["images"]]
        caches = [
            FeatureCache(paths.cache_dir() / "features", examples, made_by)
            for examples in (self.examples("train"), validated)
        ]
        for cache in caches:
            size = self.config["validation"]["batch_size"]
            cache.fill(encode, self.transform, batch_size=size, workers=self.trainer.workers)
        self.view = FrozenView(caches, self.transform, live_from=live_from)

    def batches(self, examples: Sequence[Example], batch_size: int) -> Batches:
        """Return batches over all examples in order, each image once."""
        self.beside.prepare(examples, training=False)
        return evaluation_batches(
            examples,
            self.view,
            self.vocabulary,
            self.beside.sources,
            batch_size=batch_size,
            max_words=self.max_words,
            workers=self.config["trainer"]["workers"],
        )

    def inputs(
        self,
        examples: Sequence[Example],
        images: Sequence[torch.Tensor] | None = None,
        given: Mapping[str, Sequence[str]] | None = None,
    ) -> Inputs:
        """Return what the captioner gets of examples in testing; `images` are theirs, read already, and `given` has
        the words beside them of the segments where they are not to come from the config's source."""
        seen = [self.view.of(example) for example in examples] if images is None else images
        texts = {
            name: (given or {}).get(name) or self.beside.texts(name, examples)
            for name in self.beside.segments
        }
        context = {name: self.context_ids(name, of) for name, of in texts.items()}
        return Inputs(together(seen), context).to(self.device)

    def context_ids(self, segment: str, texts: Sequence[str]) -> torch.Tensor:
        """Return the ids (N,M) of a segment's words beside N images."""
        return context_ids(texts, self.vocabulary, max_words=self.config[segment]["max_words"])

    # ------------------------------------------------------------------------------------------ model

    @cached_property
    def device(self) -> torch.device:
        return pick_device(self.config["device"])

    @cached_property
    def captioner(self) -> Captioner:
        """The model; initial weights depend on the seed alone."""
        vocabulary = self.vocabulary
        torch.manual_seed(self.config["seed"])
        if self.encoder_alone:
            captioner = model_for_encoder(self.config, vocabulary, self.initial)
            check_weights(captioner, self.initial, ENCODER)
            load_encoder(captioner, self.initial)
            logger.info("of %s the encoder alone is taken: it is a run of another task", self.initial)
            return captioner
        if self.stored is None:
            captioner = model_builder(self.config)(self.config, vocabulary)
        else:
            captioner = model_to_be_filled(self.config, vocabulary, self.stored)
        if self.checkpoint is not None:
            load_weights(captioner, self.checkpoint)
            captioner.eval().requires_grad_(False).to(self.device)
        elif self.initial is not None:
            check_weights(captioner, self.initial)
            load_weights(captioner, self.initial)
        return captioner

    @property
    def max_words(self) -> int:
        """The longest row of words that the model takes."""
        return self.captioner.decoder.max_words

    def generator(self, settings: dict[str, Any] | None = None) -> Generator:
        """Return the way of decoding, the config's unless `settings` are given."""
        settings = settings or self.config["decoding"]
        return build("decoding", settings, encode=self.vocabulary.encode, **special_ids(self.vocabulary))

    def refinement(self, rounds: int | None = None) -> Refinement:
        """Return how often captions are fed back as drafts, as the config says unless `rounds` does.

        Raises `ValueError` if there are rounds and the captioner reads no draft.
        """
        rounds = build("refine", self.config["refine"] | ({} if rounds is None else {"rounds": rounds}))
        if rounds and "draft" not in self.beside.segments:
            raise ValueError(NO_DRAFT)
        return Refinement(rounds, partial(self.context_ids, "draft"))

    # --------------------------------------------------------------------------------------- training

    @cached_property
    def trainer(self) -> Trainer:
        return build("trainer", self.config["trainer"])

    @cached_property
    def objective(self) -> Objective:
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
            scorers=(*TEXT_SCORERS, *self.dataset.scorers),
            df=self._document_frequencies(eos=eos),
        )

    @cached_property
    def loader(self) -> TrainLoader:
        self.beside.prepare(self.examples("train"), training=True)
        return TrainLoader(
            self.examples("train"),
            self.training_view,
            self.vocabulary,
            self.beside.sources,
            batch_size=self.trainer.batch_size,
            captions_per_image=self.trainer.captions_per_image,
            max_words=self.max_words,
            workers=self.trainer.workers,
            seed=self.config["seed"],
            ranks=(self.ranks.number, self.ranks.count),
        )

    def optimization(self) -> Optimization:
        """Return fresh optimisers of the captioner's parameters, with their schedule."""
        total_steps = self.trainer.total_steps(self.loader)
        factor = build("schedule", self.config["schedule"], total_steps=total_steps)
        return build("optim", self.config["optim"])(self.captioner, factor)

    def validator(self) -> Validator:
        """Return the validation on the val split."""
        return build(
            "validation",
            self.config["validation"],
            examples=self.examples("val"),
            make_batches=self.batches,
            objective=self.objective,
            generator=self.generator(),
            refinement=self.refinement(),
            vocabulary=self.vocabulary,
            score=self._score_epoch,
            ranks=self.ranks,
        )

    def _score_epoch(
        self, examples: Sequence[Example], captions: dict[str, str]
    ) -> tuple[dict[str, float], dict[str, float]]:
        scores = score(
            captions,
            {example.id: example.references for example in examples},
            annotations={example.id: example.annotations for example in examples},
            scorers=(*TEXT_SCORERS, *self.dataset.scorers),
            df=self.training_df,
            intervals=False,
        )
        health = caption_health(list(captions.values()), unknown="<unk>")
        return {name: value.value for name, value in scores.items()}, health

    def tracker(self, folder: Any, config: dict[str, Any]) -> Tracker:
        """Return where the run writes what it measures; `folder` is its RunFolder, `config` plain data."""
        return build("tracking", self.config["tracking"], folder=folder, config=config)
