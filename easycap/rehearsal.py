"""Before any work: a config's parts built without data, so that wrong settings end here."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import torch

from easycap.build import (
    CONTEXT,
    build,
    initial_checkpoint,
    model_builder,
    model_for_encoder,
    model_to_be_filled,
    special_ids,
    vocabulary_class,
    with_architecture,
    without_downloads,
)
from easycap.config import to_plain
from easycap.context.captions import KEPT as KEPT_CAPTIONS
from easycap.context.captions import captions_of
from easycap.context.draft import DraftData
from easycap.models.captioner import Captioner
from easycap.predictions import tag_checkpoint
from easycap.retrieval import check_retrieval
from easycap.runs import checkpoint_of
from easycap.training.checkpoint import CONFIG, ENCODER, check_weights, task_of
from easycap.training.hardware import pick_device
from easycap.types import Example
from easycap.vocab.tags import TagVocabulary

logger = logging.getLogger(__name__)

# Keys of data that change nothing about which images are trained on.
_SAME_IMAGES = ("workers", "cache", "on_bad_image")


def rehearse(config: dict[str, Any]) -> None:
    """Build what needs no data, the model on the meta device: wrong settings end here, before any work.

    Raises `ValueError` as the components do.
    """
    _check_combinations(config)
    vocabulary: Any = NoWords()
    initial = None if config["resume"] else initial_checkpoint(config)
    with torch.device("meta"):
        if initial is None:
            model = model_builder(config)(without_downloads(with_architecture(config)), vocabulary)
        elif task_of(initial) != config["task"]:
            model = model_for_encoder(without_downloads(with_architecture(config)), vocabulary, initial)
            check_weights(model, initial, ENCODER)
        else:
            kind = TagVocabulary if config["task"] == "tags" else vocabulary_class(config)
            model = model_to_be_filled(with_architecture(config), kind.load(initial), initial)
            check_weights(model, initial)
    if config["task"] == "caption" and not config["resume"]:
        _check_room(config, model)
    factor = build("schedule", config["schedule"], total_steps=1000)
    build("trainer", config["trainer"])
    if not config["resume"]:  # a run that goes on has its vocabulary
        build("vocab", config["vocab"], captions=["word"] * config["vocab"].get("min_count", 1))
    try:
        build("optim", config["optim"])(_OneMatrix(), factor)
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith("optim.") else f"optim: {error}") from None
    for segment in CONTEXT:
        build(segment, config[segment], draft_data=_no_data(config), open_neighbours=None, tag_data=None)
    if not config["resume"]:
        _check_other_run(config["draft"])
        for segment in CONTEXT:
            _warn_of_other_run(segment, config)
    if config["tags"].get("run") is not None:
        tag_checkpoint(config["tags"], Path(config["resume"]) if config["resume"] else None)
    build("refine", config["refine"])
    if config["task"] == "tags" or config["tags"]["name"] == "oracle":
        build("tag_vocab", config["tag_vocab"], examples=[_TAGGED] * config["tag_vocab"]["min_count"])
    build("decoding", config["decoding"], encode=vocabulary.encode, **special_ids(vocabulary))
    build(
        "objective",
        config["objective"],
        vocabulary=vocabulary,
        make_rewards=lambda weights, eos: None,  # they need the data
        **special_ids(vocabulary),
    )
    pick_device(config["device"])


def _check_room(config: dict[str, Any], captioner: Captioner) -> None:
    """Raise `ValueError` if the image and the longest words beside it could be more than the decoder can read."""
    positions = getattr(captioner.decoder, "max_positions", None)
    if positions is None or not captioner.context:
        return
    grid = captioner.encoder.grid if config["image_tokens"]["name"] == "all" else None
    # of an unknown number of regions at least one
    image = config["image_tokens"].get("count") or (math.prod(grid) if grid else 1)
    words = captioner.decoder.max_words
    slots = image + sum(config[segment]["max_words"] for segment in captioner.context)
    if slots + words > positions:
        parts = " and ".join(f"{name}.max_words={config[name]['max_words']}" for name in captioner.context)
        raise ValueError(
            f"{image} image tokens, {parts} do not fit into decoder.max_positions={positions}, of which "
            f"decoder.max_words={words} are for the caption: set decoder.max_positions={slots + words}, or lower "
            f"{' or '.join(f'{name}.max_words' for name in captioner.context)}"
        )


class NoWords:
    """Stands in for a vocabulary, of words or of tags, that is not built yet."""

    pad_id, bos_id, eos_id, unk_id = range(4)
    tags = range(997)

    def __len__(self) -> int:
        return 1000

    def encode(self, text: str) -> list[int]:
        return []


class _OneMatrix(torch.nn.Module):
    """The smallest thing that an optimiser can be made for."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Linear(2, 2)


def _check_other_run(draft: dict[str, Any]) -> None:
    """Raise `ValueError` if what a draft takes from elsewhere is not there."""
    if draft["name"] == "retrieval":
        check_retrieval(draft)
    if draft["name"] == "captions":
        for split in ("train", "val") if draft["training"]["as_tested"] else ("val",):
            captions_of(Path(draft["run"]), split)


def _warn_of_other_run(segment: str, config: dict[str, Any]) -> None:
    """Say what is doubtful about the run that a segment's words come from."""
    if config[segment].get("run") is None:
        return
    run = Path(config[segment]["run"])
    try:
        if (run / "status.json").is_file():
            status = json.loads((run / "status.json").read_text(encoding="utf-8"))["status"]
            if status != "completed":
                logger.warning(
                    "%s.run=%s is not finished (%s): its best so far is taken", segment, run, status
                )
        data = json.loads((checkpoint_of(run) / CONFIG).read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError):  # a folder of captions alone says nothing of its training
        return
    own = to_plain(config["data"])
    others = [key for key in own if key not in _SAME_IMAGES and own[key] != data.get(key)]
    if others:
        logger.warning(
            "%s.run=%s was trained on other data (%s): its training images may be among the test images here, whose "
            "scores would then be too high",
            segment,
            run,
            ", ".join(f"data.{key}={data.get(key)}, here {own[key]}" for key in others),
        )


def _no_data(config: dict[str, Any]) -> DraftData:
    per_image = config["trainer"]["captions_per_image"]
    kept = Path(config["resume"]) / KEPT_CAPTIONS if config["resume"] else None
    return DraftData(dict, captions_per_image=per_image, seed=config["seed"], kept=kept)


_TAGGED = Example("", None, ("dog",), ("dog",))


def _check_task(config: dict[str, Any]) -> None:
    task, tagger = config["task"], config["tagger"]["name"]
    if task not in ("caption", "tags"):
        raise ValueError(f"task={task} must be caption or tags")
    if task == "tags" and tagger == "none":
        raise ValueError("task=tags needs a model of tags: set tagger=cnn or tagger=lstm")
    for segment in CONTEXT:
        if task == "tags" and config[segment]["name"] != "none":
            raise ValueError(
                f"{segment}={config[segment]['name']} is for captioners: leave it out with task=tags"
            )
    if task == "caption" and tagger != "none":
        raise ValueError(
            f"tagger={tagger} is trained by task=tags; a captioner gets the tags of a trained one by tags=predicted "
            "tags.run=RUN"
        )


def _check_rewarded_drafts(draft: dict[str, Any]) -> None:
    """Raise `ValueError` if training drafts are references of the image: what earns a reward is to copy them then."""
    shares = ("another", "nothing") if draft["name"] == "oracle" else ("another", "nothing", "as_tested")
    if sum(draft["training"][name] for name in shares) < 1 - 1e-9:
        raise ValueError(
            f"objective=scst rewards likeness to an image's references, and training drafts of draft={draft['name']} "
            f"are among them: set draft.training.{', '.join(shares[:-1])} and {shares[-1]} to 1 together"
        )


def _check_combinations(config: dict[str, Any]) -> None:
    """Raise `ValueError` for parts that are right alone and wrong together."""
    _check_task(config)
    hard = to_plain(config["decoder"].get("attention")) == "hard"
    if hard and config["objective"]["name"] == "scst":
        raise ValueError(
            "objective=scst does not go with decoder.attention=hard, whose drawn locations have no part in the "
            "probability of a caption: take objective=xe or decoder.attention=soft"
        )
    told_apart = config["decoder"].get("segments")
    for segment in CONTEXT:
        if told_apart and config[segment]["name"] != "none" and segment not in told_apart:
            raise ValueError(
                f"decoder.segments={list(told_apart)} does not name {segment}, and {segment}={config[segment]['name']} "
                f"puts words there: add {segment}, or tell no segments apart with decoder.segments=[]"
            )
    if config["refine"]["rounds"] and config["draft"]["name"] == "none":
        raise ValueError(
            f"refine.rounds={config['refine']['rounds']} feeds captions back as drafts, and draft=none reads none: set "
            "e.g. draft=own, or refine.rounds=0"
        )
    if config["objective"]["name"] == "scst" and config["draft"]["name"] != "none":
        _check_rewarded_drafts(config["draft"])
    if config["refine"]["rounds"] and config["decoding"].get("num_samples", 1) > 1:
        raise ValueError(
            f"refine.rounds={config['refine']['rounds']} feeds one caption of an image back, and "
            f"decoding.num_samples={config['decoding']['num_samples']} makes several: set one of them to 0 or 1"
        )
    if config["trainer"]["flip"] and (config["objective"].get("rewards") or {}).get("truth"):
        raise ValueError(
            "trainer.flip=true does not go with a reward for truth, which knows what is left and right in the image as "
            "it was drawn: set trainer.flip=false"
        )
    of_pixels = [name for name in ("cache_features", "crop", "flip") if config["trainer"][name]]
    if config["encoder"]["name"] == "precomputed" and of_pixels:
        off = {"cache_features": "false", "crop": "null", "flip": "false"}[of_pixels[0]]
        raise ValueError(
            f"trainer.{of_pixels[0]} is for encoders that see images, and encoder=precomputed reads features: set "
            f"trainer.{of_pixels[0]}={off}"
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
