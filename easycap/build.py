"""From a checked config to objects: the only caller of the registry. Config objects stop here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

# Importing a component registers it: a new one needs a line here, its file and its YAML.
import easycap.context.captions
import easycap.context.noise
import easycap.context.none
import easycap.context.oracle
import easycap.context.own
import easycap.context.refine
import easycap.context.retrieval
import easycap.context.tags
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
import easycap.models.encoders.precomputed
import easycap.models.encoders.regions
import easycap.models.encoders.small
import easycap.models.encoders.timm
import easycap.models.image_tokens.all
import easycap.models.image_tokens.grid
import easycap.models.image_tokens.mapper
import easycap.models.image_tokens.mlp
import easycap.models.image_tokens.resampler
import easycap.models.image_tokens.split
import easycap.models.taggers.cnn
import easycap.models.taggers.lstm
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
import easycap.vocab.tags
import easycap.vocab.word  # noqa: F401
from easycap.config import SUPPLIED
from easycap.context.tags import Placement
from easycap.data.findings import OnBadImage
from easycap.data.precomputed import PrecomputedFeatures
from easycap.models.captioner import Captioner
from easycap.models.context.words import ContextWords
from easycap.models.decoders.language_models import architecture_of
from easycap.models.decoders.segments import SEGMENTS
from easycap.models.image_model import ImageModel
from easycap.models.tag_model import TagModel
from easycap.registry import lookup, parameters
from easycap.runs import checkpoint_of
from easycap.training.checkpoint import CONFIG, read_preprocessing, task_of
from easycap.types import Dataset, Decoder, Encoder, Preprocessing, Vocabulary
from easycap.vocab.files import read_tokenizer
from easycap.vocab.tags import TagVocabulary

# The groups that put words beside an image, each a segment of the memory.
CONTEXT = ("tags", "draft")


def build(group: str, settings: dict[str, Any], **supplied: Any) -> Any:
    """Return the component that a checked group names; of `supplied` it gets what its constructor asks for."""
    component = lookup(group, settings["name"])
    values = {key: value for key, value in settings.items() if key != "name"}
    wanted = (SUPPLIED & set(parameters(component))) - values.keys()
    return component(**values, **{key: supplied[key] for key in wanted})


def build_dataset(config: dict[str, Any], *, with_tags: bool = False) -> Dataset:
    """Return the data of a config, with the tags that it has itself for training images too where they are wanted.

    Where its encoder reads features made elsewhere, images know theirs.
    """
    features = precomputed_features(config["encoder"])
    dataset = build(
        "data", config["data"], pixels=features is None or _others_see(config), with_tags=with_tags
    )
    if features is None:
        return dataset
    return features.attach(dataset, config["data"].get("on_bad_image", OnBadImage.error))


def _others_see(config: dict[str, Any]) -> bool:
    """Whether the words beside an image come from models that see its pixels, whatever the captioner sees."""
    return config["draft"]["name"] == "retrieval" or config["tags"].get("run") is not None


def precomputed_features(encoder: dict[str, Any]) -> PrecomputedFeatures | None:
    """Return the features made elsewhere that the encoder of a checked group reads, None if it sees images."""
    if encoder["name"] != "precomputed":
        return None
    return PrecomputedFeatures(**{key: value for key, value in encoder.items() if key != "name"})


def vocabulary_class(config: dict[str, Any]) -> Any:
    """Return the class of a config's vocabulary, which loads what it saved."""
    return lookup("vocab", config["vocab"]["name"])


def needs_captions(vocabulary: Any) -> bool:
    """Return whether a class of vocabularies is made from the training captions."""
    return "captions" in parameters(vocabulary)


def build_captioner(
    config: dict[str, Any], vocabulary: Vocabulary, preprocessing: Preprocessing | None = None
) -> Captioner:
    """Return the model of a config for a vocabulary: encoder, then decoder, then the image tokens between them.

    `preprocessing` is what a checkpoint's encoder expects, where that is not built from its weights' own config.
    """
    encoder = _encoder(config, preprocessing)
    decoder = build(
        "decoder",
        config["decoder"],
        channels=encoder.channels,
        vocab_size=len(vocabulary),
        pieces=_pieces(config["decoder"], vocabulary),
        **special_ids(vocabulary),
    )
    image_tokens = build(
        "image_tokens",
        config["image_tokens"],
        channels=encoder.channels,
        source_grid=encoder.grid,
        memory_dim=decoder.memory_dim,
    )
    context = {
        segment: ContextWords(decoder, max_words=config[segment]["max_words"], pad_id=vocabulary.pad_id)
        for segment in CONTEXT
        if config[segment]["name"] != "none"
    }
    return Captioner(
        encoder=encoder,
        image_tokens=image_tokens,
        decoder=decoder,
        context=context,
        order=_order(config["tags"], decoder),
    )


def _encoder(config: dict[str, Any], preprocessing: Preprocessing | None) -> Encoder:
    encoder = build("encoder", config["encoder"])
    encoder.preprocessing = preprocessing or encoder.preprocessing
    return encoder


def _order(tags: dict[str, Any], decoder: Decoder) -> Sequence[str]:
    """The order of the memory's segments; `ValueError` if it is to be one that the decoder could not tell."""
    if tags.get("placement") is not Placement.after_image:
        return SEGMENTS
    if not decoder.prefix:
        raise ValueError(
            "tags.placement=after_image is for decoders that read the memory slot by slot (causal_lm, lstm), and this "
            "one looks at all of it at once: leave tags.placement out"
        )
    return ("image", "tags", "draft")


def build_tag_model(
    config: dict[str, Any], vocabulary: TagVocabulary, preprocessing: Preprocessing | None = None
) -> TagModel:
    """Return the tag model of a config for a vocabulary of tags; `preprocessing` as for `build_captioner`."""
    encoder = _encoder(config, preprocessing)
    tagger = build(
        "tagger",
        config["tagger"],
        channels=encoder.channels,
        vocab_size=len(vocabulary),
        num_tags=len(vocabulary.tags),
        **{name: getattr(vocabulary, name) for name in ("pad_id", "bos_id", "eos_id")},
    )
    return TagModel(encoder=encoder, tagger=tagger)


def model_builder(config: dict[str, Any]) -> Callable[..., ImageModel]:
    """Return what builds the model of a config's task: `build_captioner` or `build_tag_model`."""
    return {"caption": build_captioner, "tags": build_tag_model}[config["task"]]


def preprocessing_of(encoder: dict[str, Any]) -> Preprocessing | None:
    """Return what the encoder of a checked group expects of images, without weights."""
    with torch.device("meta"):
        return build(
            "encoder", without_downloads({"encoder": encoder, "decoder": {}})["encoder"]
        ).preprocessing


def model_to_be_filled(config: dict[str, Any], vocabulary: Any, checkpoint: Path) -> Any:
    """The model of a config for the weights of a checkpoint, which bring their own view of the image."""
    seen = read_preprocessing(checkpoint)
    return model_builder(config)(without_downloads(config, seen and seen.size), vocabulary, seen)


def model_for_encoder(config: dict[str, Any], vocabulary: Any, checkpoint: Path) -> Any:
    """The model of a config for the encoder of a checkpoint, which brings its own view of the image."""
    seen = read_preprocessing(checkpoint)
    encoder = without_downloads(config, seen and seen.size)["encoder"]
    return model_builder(config)(config | {"encoder": encoder}, vocabulary, seen)


def initial_checkpoint(config: dict[str, Any]) -> Path | None:
    """Return the checkpoint that `init_from` names, the best of a run; None without `init_from`.

    Raises `ValueError` if there is none or if it is of the same task and has another vocabulary than the config.
    """
    if config["init_from"] is None:
        return None
    try:
        folder = checkpoint_of(Path(config["init_from"]))
        vocab = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["vocab"]["name"]
        same_task = task_of(folder) == config["task"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"init_from={config['init_from']}: {error}") from None
    if same_task and config["task"] == "caption" and vocab != config["vocab"]["name"]:
        raise ValueError(
            f"init_from={config['init_from']} knows the words of vocab={vocab}: set vocab={vocab}"
        )
    return folder


def special_ids(vocabulary: Vocabulary) -> dict[str, int | None]:
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


def without_downloads(config: dict[str, Any], image_size: int | None = None) -> dict[str, Any]:
    """The config with untrained parts, the encoder for `image_size`: a checkpoint brings all weights."""
    encoder, decoder = dict(config["encoder"]), dict(config["decoder"])
    untrained = {"pretrained": False, "weights": None, "image_size": image_size or encoder.get("image_size")}
    encoder |= {name: value for name, value in untrained.items() if name in encoder}
    if decoder.get("pretrained") is not None:
        decoder |= {"pretrained": None, "embedding": "random"}
    return config | {"encoder": encoder, "decoder": decoder}
