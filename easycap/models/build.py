"""From a checked config to a model: encoder, decoder, image tokens and text conditions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from easycap.config.instantiate import build, condition_names, special_ids
from easycap.errors import UserError
from easycap.models.captioner import Captioner
from easycap.models.checkpoint import read_preprocessing
from easycap.models.condition_tokens import ConditionTokens
from easycap.models.decoders.language_models import architecture_of
from easycap.models.decoders.segments import Placement
from easycap.models.image_model import ImageModel
from easycap.models.tag_model import TagModel
from easycap.models.word_vectors import start_from_word_vectors
from easycap.runs.find import CONFIG, checkpoint_of, task_of
from easycap.types import Decoder, Encoder, Preprocessing, Vocabulary
from easycap.vocab.tags import TagVocabulary
from easycap.vocab.tokenizer_files import read_tokenizer

# `build_captioner` or `build_tag_model`.
BuildModel = Callable[..., ImageModel]


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
        subword_ids=_subword_ids(config["decoder"], vocabulary),
        **special_ids(vocabulary),
    )
    if (source := config["captioner"]["word_vectors"]) is not None:
        start_from_word_vectors(decoder.token_embedding, vocabulary, source, seed=config["seed"])
    image_tokens = build(
        "image_tokens",
        config["image_tokens"],
        channels=encoder.channels,
        source_grid=encoder.grid,
        memory_dim=decoder.memory_dim,
    )
    context = {
        name: ConditionTokens(decoder, max_length=config[name]["max_length"], pad_id=vocabulary.pad_id)
        for name in condition_names(config)
    }
    return Captioner(
        encoder=encoder,
        image_tokens=image_tokens,
        decoder=decoder,
        context=context,
        order=_order({name: config[name] for name in context}, decoder),
    )


def _encoder(config: dict[str, Any], preprocessing: Preprocessing | None) -> Encoder:
    encoder = build("encoder", config["encoder"])
    encoder.preprocessing = preprocessing or encoder.preprocessing
    return encoder


def _order(conditions: dict[str, dict[str, Any]], decoder: Decoder) -> Sequence[str]:
    """The order of the memory's segments: a condition without the setting `placement` comes after the image.

    Raises `UserError` if a setting `placement` asks for an order that makes no difference to the decoder.
    """
    before: list[str] = []
    after: list[str] = []
    for name, settings in conditions.items():
        placement = settings.get("placement")
        (before if placement is Placement.before_image else after).append(name)
        if placement is Placement.after_image and not decoder.prefix:
            raise UserError(
                f"{name}.placement=after_image is for decoders that read the memory position by position (causal_lm, "
                f"lstm), and this one attends to all of it at once: leave {name}.placement out"
            )
    return [*before, "image", *after]


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


def preprocessing_of(encoder: dict[str, Any]) -> Preprocessing | None:
    """Return what the encoder of a checked group expects of images, without weights."""
    with torch.device("meta"):
        return build(
            "encoder", without_downloads({"encoder": encoder, "decoder": {}})["encoder"]
        ).preprocessing


def untrained_model(
    build_model: BuildModel, config: dict[str, Any], vocabulary: Any, checkpoint: Path
) -> Any:
    """The model of a config for the weights of a checkpoint, which bring their own view of the image."""
    seen = read_preprocessing(checkpoint)
    return build_model(without_downloads(config, seen and seen.size), vocabulary, seen)


def model_for_encoder(
    build_model: BuildModel, config: dict[str, Any], vocabulary: Any, checkpoint: Path
) -> Any:
    """The model of a config for the encoder of a checkpoint, which brings its own view of the image."""
    seen = read_preprocessing(checkpoint)
    encoder = without_downloads(config, seen and seen.size)["encoder"]
    return build_model(config | {"encoder": encoder}, vocabulary, seen)


def initial_checkpoint(config: dict[str, Any]) -> Path | None:
    """Return the checkpoint that `init_from` names, the best of a run; None without `init_from`.

    Raises `UserError` if there is none or if it is of the same task and has another vocabulary than the config.
    """
    if config["init_from"] is None:
        return None
    try:
        folder = checkpoint_of(Path(config["init_from"]))
        vocab = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["vocab"]["name"]
        same_task = task_of(folder) == config["task"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"init_from={config['init_from']}: {error}") from None
    if same_task and config["task"] == "caption" and vocab != config["vocab"]["name"]:
        raise UserError(f"init_from={config['init_from']} uses vocab={vocab}: set vocab={vocab}")
    return folder


def _subword_ids(decoder: dict[str, Any], vocabulary: Vocabulary) -> list[list[int]] | None:
    """The vocabulary in the ids of the decoder's pretrained language model, where its words are to start there.

    An empty list where a checkpoint brings them: they are not new to the model either.
    """
    source = decoder.get("pretrained")
    if decoder.get("embedding", "random") == "random":
        return None
    if source is None:
        return []
    try:
        return vocabulary.subword_ids(read_tokenizer(source))
    except ValueError as error:
        raise UserError(
            f"decoder.embedding={decoder['embedding']} needs the tokenizer of decoder.pretrained={source!r} ({error}): "
            "put its tokenizer.json, or vocab.json and merges.txt, into that folder, or set decoder.embedding=random"
        ) from None


def with_architecture(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config with the architecture of a pretrained language model: a checkpoint is built from that alone.

    Raises `UserError` if there is no such language model.
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
        # auto: a table that was the language model's own; one that started at random is trained in any case
        decoder |= {"pretrained": None, "embedding": "random" if decoder["embedding"] == "random" else "auto"}
    parts = {"encoder": encoder, "decoder": decoder}
    if captioner := config.get("captioner"):
        untrained = {"model": "", "word_vectors": None}
        parts["captioner"] = captioner | {
            name: value for name, value in untrained.items() if name in captioner
        }
    return config | parts
