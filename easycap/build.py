"""From a checked config to objects: the only caller of the registry. Config objects stop here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

# Importing a component registers it: a new one needs a line here, its file and its YAML.
import easycap.data.coco
import easycap.data.folder
import easycap.data.karpathy
import easycap.data.scenes.source
import easycap.generation.beam
import easycap.generation.greedy
import easycap.generation.sample
import easycap.models.decoders.attention_lstm
import easycap.models.decoders.causal_lm
import easycap.models.decoders.lstm
import easycap.models.decoders.m2
import easycap.models.decoders.transformer
import easycap.models.decoders.updown
import easycap.models.encoders.small
import easycap.models.encoders.timm
import easycap.models.image_tokens.all
import easycap.models.image_tokens.grid
import easycap.models.image_tokens.mapper
import easycap.models.image_tokens.mlp
import easycap.models.image_tokens.resampler
import easycap.models.image_tokens.split
import easycap.objectives.scheduled_sampling
import easycap.objectives.scst
import easycap.objectives.xe
import easycap.sweeping.launchers
import easycap.tracking.trackers
import easycap.training.optim
import easycap.training.schedule
import easycap.training.trainer
import easycap.training.validation
import easycap.vocab.bert
import easycap.vocab.gpt2
import easycap.vocab.word  # noqa: F401
from easycap import paths
from easycap.config import SUPPLIED, check, to_plain
from easycap.data.features import FeatureCache, FrozenView, fingerprint
from easycap.data.loader import Batches, TrainLoader, evaluation_batches
from easycap.data.transforms import Transform
from easycap.metrics import DocumentFrequencies, caption_health, score
from easycap.metrics.rewards import Rewards
from easycap.models.captioner import Captioner
from easycap.models.decoders.language_models import architecture_of
from easycap.registry import lookup, parameters
from easycap.runs import checkpoint_of
from easycap.shared import digest_of, made_once
from easycap.training.checkpoint import (
    CONFIG,
    check_weights,
    load_weights,
    read_preprocessing,
    read_progress,
)
from easycap.training.hardware import autocast, pick_device
from easycap.training.optim import Optimization
from easycap.training.ranks import ALONE, Ranks
from easycap.training.trainer import Trainer
from easycap.training.validation import Validator
from easycap.types import Dataset, Example, Generator, Objective, Preprocessing, Tracker, Vocabulary
from easycap.vocab.files import read_tokenizer

TEXT_SCORERS = ("bleu", "rouge_l", "cider_d")


def build(group: str, settings: dict[str, Any], **supplied: Any) -> Any:
    """Return the component that a checked group names; of `supplied` it gets what its constructor asks for."""
    component = lookup(group, settings["name"])
    values = {key: value for key, value in settings.items() if key != "name"}
    wanted = (SUPPLIED & set(parameters(component))) - values.keys()
    return component(**values, **{key: supplied[key] for key in wanted})


def build_dataset(settings: dict[str, Any]) -> Dataset:
    """Return the data of a checked group."""
    return build("data", settings)


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
        self.start, self.stored = start, checkpoint or start or self.initial

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
        experiment = cls(check(OmegaConf.create(stored)) | {"device": device}, folder)
        if data_of is not None:
            experiment.dataset, experiment.training_df = data_of.dataset, data_of.training_df
            experiment.ranks = data_of.ranks
        return experiment

    # ------------------------------------------------------------------------------------------- data

    @cached_property
    def dataset(self) -> Dataset:
        dataset = build_dataset(self.config["data"])
        for split, examples in dataset.splits.items():
            if not examples:
                raise ValueError(
                    f"data={dataset.name}: no image of the {split} split can be used; `easycap data check` says why"
                )
        if self.config["trainer"]["overfit_batch"]:
            few = dataset.splits["train"][: self.config["trainer"]["batch_size"]]
            return dataset._replace(splits=dict.fromkeys(("train", "val", "test"), few))
        return dataset

    def examples(self, split: str) -> list[Example]:
        """Return the examples of a split; `ValueError` names the splits there are."""
        if split not in self.dataset.splits:
            raise ValueError(f"split {split!r} does not exist; allowed: {', '.join(self.dataset.splits)}")
        return self.dataset.splits[split]

    @cached_property
    def vocabulary(self) -> Vocabulary:
        kind = lookup("vocab", self.config["vocab"]["name"])
        if self.stored is not None:
            return kind.load(self.stored)
        if "captions" not in parameters(kind):
            return build("vocab", self.config["vocab"])
        captions = [caption for example in self.examples("train") for caption in example.references]
        settings = json.dumps(to_plain(self.config["vocab"]), sort_keys=True)
        code = Path(easycap.vocab.__file__).parent
        folder = paths.cache_dir() / "vocab" / digest_of([settings, *captions], code=code)
        # Every run and every cell of a sweep wants the same: one makes it.
        made_once(folder, lambda new: build("vocab", self.config["vocab"], captions=captions).save(new))
        return kind.load(folder)

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
    def view(self) -> Transform | FrozenView:
        """What training and its validation get of an image: its pixels, or after `cache_features` its features."""
        return self.transform

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
        made_by = fingerprint(encoder.state_dict().items(), settings, encoder.preprocessing, precision.name)

        @torch.no_grad()
        def encode(images: torch.Tensor) -> torch.Tensor:
            with autocast(self.device, precision):
                return self.captioner.encode(images.to(self.device)).cells

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
        return evaluation_batches(
            examples,
            self.view,
            self.vocabulary,
            batch_size=batch_size,
            max_words=self.captioner.decoder.max_words,
            workers=self.config["trainer"]["workers"],
        )

    # ------------------------------------------------------------------------------------------ model

    @cached_property
    def device(self) -> torch.device:
        return pick_device(self.config["device"])

    @cached_property
    def captioner(self) -> Captioner:
        """The model; initial weights depend on the seed alone."""
        torch.manual_seed(self.config["seed"])
        if self.stored is None:
            captioner = build_captioner(self.config, self.vocabulary)
        else:
            captioner = _to_be_filled(self.config, self.vocabulary, self.stored)
        if self.checkpoint is not None:
            load_weights(captioner, self.checkpoint)
            captioner.eval().requires_grad_(False).to(self.device)
        elif self.initial is not None:
            check_weights(captioner, self.initial)
            load_weights(captioner, self.initial)
        return captioner

    def generator(self, settings: dict[str, Any] | None = None) -> Generator:
        """Return the way of decoding, the config's unless `settings` are given."""
        settings = settings or self.config["decoding"]
        return build("decoding", settings, encode=self.vocabulary.encode, **_ids(self.vocabulary))

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
            **_ids(self.vocabulary),
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
        return TrainLoader(
            self.examples("train"),
            self.view,
            self.vocabulary,
            batch_size=self.trainer.batch_size,
            captions_per_image=self.trainer.captions_per_image,
            max_words=self.captioner.decoder.max_words,
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


def build_captioner(
    config: dict[str, Any], vocabulary: Vocabulary, preprocessing: Preprocessing | None = None
) -> Captioner:
    """Return the model of a config for a vocabulary: encoder, then decoder, then the image tokens between them.

    `preprocessing` is what a checkpoint's encoder expects, where that is not built from its weights' own config.
    """
    encoder = build("encoder", config["encoder"])
    encoder.preprocessing = preprocessing or encoder.preprocessing
    decoder = build(
        "decoder",
        config["decoder"],
        channels=encoder.channels,
        vocab_size=len(vocabulary),
        pieces=_pieces(config["decoder"], vocabulary),
        **_ids(vocabulary),
    )
    image_tokens = build(
        "image_tokens",
        config["image_tokens"],
        channels=encoder.channels,
        source_grid=encoder.grid,
        memory_dim=decoder.memory_dim,
    )
    return Captioner(encoder=encoder, image_tokens=image_tokens, decoder=decoder)


def preprocessing_of(encoder: dict[str, Any]) -> Preprocessing:
    """Return what the encoder of a checked group expects of images, without weights."""
    with torch.device("meta"):
        return build(
            "encoder", _without_downloads({"encoder": encoder, "decoder": {}})["encoder"]
        ).preprocessing


def _to_be_filled(config: dict[str, Any], vocabulary: Vocabulary, checkpoint: Path) -> Captioner:
    """The model of a config for the weights of a checkpoint, which bring their own view of the image."""
    seen = read_preprocessing(checkpoint)
    return build_captioner(_without_downloads(config, seen.size), vocabulary, seen)


def initial_checkpoint(config: dict[str, Any]) -> Path | None:
    """Return the checkpoint that `init_from` names, the best of a run; None without `init_from`.

    Raises `ValueError` if there is none or if it has another vocabulary than the config.
    """
    if config["init_from"] is None:
        return None
    try:
        folder = checkpoint_of(Path(config["init_from"]))
        vocab = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["vocab"]["name"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"init_from={config['init_from']}: {error}") from None
    if vocab != config["vocab"]["name"]:
        raise ValueError(
            f"init_from={config['init_from']} knows the words of vocab={vocab}: set vocab={vocab}"
        )
    return folder


def _ids(vocabulary: Vocabulary) -> dict[str, int | None]:
    return {name: getattr(vocabulary, name) for name in ("pad_id", "bos_id", "eos_id", "unk_id")}


def _pieces(decoder: dict[str, Any], vocabulary: Vocabulary) -> list[list[int]] | None:
    """The vocabulary in the ids of the decoder's pretrained language model, where its words are to start there."""
    source = decoder.get("pretrained")
    if source is None or decoder.get("embedding") != "pretrained":
        return None
    try:
        return vocabulary.pieces(read_tokenizer(source))
    except ValueError as error:
        raise ValueError(
            f"decoder.embedding=pretrained needs the tokenizer of decoder.pretrained={source!r} ({error}): put its "
            "tokenizer.json, or vocab.json and merges.txt, into that folder, or set decoder.embedding=random"
        ) from None


def with_architecture(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config with the architecture of a pretrained language model: a checkpoint is built from that alone.

    Raises `ValueError` if there is no such language model.
    """
    decoder = config["decoder"]
    if decoder.get("pretrained") is None or decoder["architecture"] is not None:
        return config
    return config | {"decoder": decoder | {"architecture": architecture_of(decoder["pretrained"])}}


def _without_downloads(config: dict[str, Any], image_size: int | None = None) -> dict[str, Any]:
    """The config with untrained parts, the encoder for `image_size`: a checkpoint brings all weights."""
    encoder, decoder = dict(config["encoder"]), dict(config["decoder"])
    untrained = {"pretrained": False, "weights": None, "image_size": image_size or encoder.get("image_size")}
    encoder |= {name: value for name, value in untrained.items() if name in encoder}
    if decoder.get("pretrained") is not None:
        decoder |= {"pretrained": None, "embedding": "random"}
    return config | {"encoder": encoder, "decoder": decoder}


class _NoWords:
    """Stands in for a vocabulary that is not built yet."""

    pad_id, bos_id, eos_id, unk_id = range(4)

    def __len__(self) -> int:
        return 1000

    def encode(self, text: str) -> list[int]:
        return []


class _OneMatrix(torch.nn.Module):
    """The smallest thing an optimiser can be made for."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Linear(2, 2)


def _check_combinations(config: dict[str, Any]) -> None:
    """Raise `ValueError` for parts that are right alone and wrong together."""
    hard = to_plain(config["decoder"].get("attention")) == "hard"
    if hard and config["objective"]["name"] == "scst":
        raise ValueError(
            "objective=scst does not go with decoder.attention=hard, whose drawn locations have no part in the "
            "probability of a caption: take objective=xe or decoder.attention=soft"
        )
    if config["objective"].get("xe_first") and config["trainer"]["patience"] is None:
        raise ValueError(
            "objective.xe_first=true goes over to rewards when validations stop improving: set trainer.patience, e.g. "
            "trainer.patience=3"
        )
    if hard and config["objective"]["name"] == "scheduled_sampling":
        raise ValueError(
            "objective=scheduled_sampling does not go with decoder.attention=hard, which is rewarded for the words it "
            "reads: take objective=xe or decoder.attention=soft"
        )


def rehearse(config: dict[str, Any]) -> None:
    """Build what needs no data, the model on the meta device: wrong settings end here, before any work.

    Raises `ValueError` as the components do.
    """
    _check_combinations(config)
    vocabulary: Any = _NoWords()
    initial = None if config["resume"] else initial_checkpoint(config)
    with torch.device("meta"):
        if initial is None:
            build_captioner(_without_downloads(with_architecture(config)), vocabulary)
        else:
            words = lookup("vocab", config["vocab"]["name"]).load(initial)
            check_weights(_to_be_filled(with_architecture(config), words, initial), initial)
    factor = build("schedule", config["schedule"], total_steps=1000)
    build("trainer", config["trainer"])
    if not config["resume"]:  # a run that goes on has its vocabulary
        build("vocab", config["vocab"], captions=["word"] * config["vocab"].get("min_count", 1))
    try:
        build("optim", config["optim"])(_OneMatrix(), factor)
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith("optim.") else f"optim: {error}") from None
    build("decoding", config["decoding"], encode=vocabulary.encode, **_ids(vocabulary))
    build(
        "objective",
        config["objective"],
        vocabulary=vocabulary,
        make_rewards=lambda weights, eos: None,  # they need the data
        **_ids(vocabulary),
    )
    pick_device(config["device"])
