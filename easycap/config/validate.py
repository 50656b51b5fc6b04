"""Checks across groups: settings that are valid alone and wrong together. They read the config and build nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from easycap.config.data_locations import check_locations, with_locations
from easycap.config.instantiate import condition_names, segmenter_of
from easycap.config.options import read_yaml
from easycap.config.schema import OF_PARTS, check, check_stored, to_plain
from easycap.errors import UserError
from easycap.utils.segmenters import SPACES

logger = logging.getLogger(__name__)

Config = dict[str, Any]

# Keys of the config of a run that was made of others, and what can be trained instead.
_NEVER_TRAINED = {"ensemble": ": resume one of its runs", "average": ": train on with init_from=RUN"}
_DEFAULT_OBJECTIVE = "xe"  # of conf/train.yaml


def validate(config: Mapping[str, Any], locations: Mapping[str, str] | None = None) -> Config:
    """Return a composed config as plain data; with `resume`, that run's own config with its data at `locations`.

    Raises `UserError` for a wrong setting, and for settings that do not go together.
    """
    settings = check(config)
    if settings["resume"]:
        settings = with_locations(_resumed(Path(settings["resume"]), settings), locations or {})
        check_locations(settings)
    check_combinations(settings)
    return settings


def _resumed(run: Path, requested: Config) -> Config:
    """The stored config of a run, to be resumed on the requested device."""
    if not (run / "config.yaml").is_file():
        raise UserError(
            f"resume={run} is not a run's folder (config.yaml is missing); `easycap runs` lists runs"
        )
    written = read_yaml(run / "config.yaml")
    for kind, remedy in _NEVER_TRAINED.items():
        if kind in written:
            raise UserError(
                f"resume={run} is an {kind} of trained models and has no training to resume{remedy}"
            )
    try:
        stored = check_stored(written)
    except UserError as error:
        raise UserError(f"{error} (in {run / 'config.yaml'})") from None
    return stored | {"device": requested["device"], "resume": str(run)}


def check_combinations(config: Config) -> None:
    """Raise `UserError` for the first settings of a checked config that do not go together."""
    for check_one in (
        _task,
        _captioner,
        _word_vectors,
        _words,
        _hard_attention,
        _segments,
        _refinement,
        _flips,
        _pixels,
        _stages,
        _shard,
    ):
        check_one(config)


def _task(config: Config) -> None:
    task, tagger = config["task"], config["tagger"]["name"]
    if task not in ("caption", "tags"):
        raise UserError(f"task={task} must be caption or tags")
    if task == "tags" and tagger == "none":
        raise UserError("task=tags needs a tagger: set tagger=cnn or tagger=lstm")
    if task == "tags" and config["objective"]["name"] != _DEFAULT_OBJECTIVE and not config["resume"]:
        raise UserError(
            f"objective={config['objective']['name']} is for captioners, and a tagger has a loss of its own: leave "
            f"objective out with task=tags, or set objective={_DEFAULT_OBJECTIVE} to replace that of a recipe"
        )
    for name in condition_names(config):
        if task == "tags":
            raise UserError(f"{name}={config[name]['name']} is for captioners: leave it out with task=tags")
    if task == "caption" and tagger != "none":
        raise UserError(
            f"tagger={tagger} is trained with task=tags; a captioner uses a trained tagger through "
            "tags=predicted tags.run=RUN"
        )


def _shard(config: Config) -> None:
    if config["trainer"]["shard"] and (
        config["task"] != "caption" or config["decoder"]["name"] != "causal_lm"
    ):
        raise UserError(
            "trainer.shard=true is for language models: set decoder=causal_lm, or trainer.shard=false"
        )


def check_used(overrides: Sequence[str]) -> None:
    """Raise `UserError` for overrides of the parts of a captioner where another has been chosen that has none."""
    chosen = next((word for word in overrides if word.lstrip("+").startswith("captioner=")), "")
    if chosen.partition("=")[2] in ("", "parts"):
        return
    for word in overrides:
        group = word.lstrip("+").partition("=")[0].partition(".")[0]
        if group in OF_PARTS:
            raise UserError(
                f"{word} is for captioner=parts: leave it out with {chosen}, which has its own {group}"
            )


def warn_of_epochs(overrides: Sequence[str], config: Config) -> None:
    """Log a warning if trainer.epochs is among the overrides but the recipe's trainer.max_steps decides."""
    keys = [word.lstrip("+").partition("=")[0] for word in overrides]
    steps = config["trainer"]["max_steps"]
    if "trainer.epochs" in keys and "trainer.max_steps" not in keys and steps is not None:
        logger.warning(
            "trainer.epochs has no effect, as the recipe sets trainer.max_steps=%d; to train for epochs, add "
            "trainer.max_steps=null",
            steps,
        )


def _captioner(config: Config) -> None:
    """What a captioner of transformers has of its own, and what it lacks."""
    if config["captioner"]["name"] == "parts":
        return
    chosen = f"captioner={config['captioner']['name']}"
    if config["task"] != "caption":
        raise UserError(f"{chosen} writes captions: leave it out with task={config['task']}")
    for name in condition_names(config):
        raise UserError(f"{name}={config[name]['name']} is for captioner=parts: leave it out with {chosen}")
    if config["objective"]["name"] == "scheduled_sampling":
        raise UserError(
            f"objective=scheduled_sampling is for captioner=parts: use objective=xe with {chosen}"
        )
    off = {"crop": "null", "cached_crops": "null", "freeze_batchnorm": "false"}
    off |= {"flip": "false", "compile": "false", "shard": "false"}
    for key, value in off.items():
        if config["trainer"][key] not in (None, False, "auto"):
            raise UserError(f"trainer.{key} is for captioner=parts: set trainer.{key}={value} with {chosen}")


def _word_vectors(config: Config) -> None:
    source = config["captioner"].get("word_vectors")
    if source is None:
        return
    if config["task"] != "caption":
        raise UserError(f"captioner.word_vectors is for captioners: leave it out with task={config['task']}")
    if config["decoder"].get("pretrained") is not None:
        raise UserError(
            "captioner.word_vectors is for decoders trained from scratch, and decoder.pretrained has word embeddings "
            "of its own: leave it out (decoder.embedding=random discards them)"
        )


def _words(config: Config) -> None:
    segmenter = segmenter_of(config)
    needs_tags = config["task"] == "tags" or "tags" in condition_names(config)
    if needs_tags and config["tag_vocab"]["name"] == "captions" and segmenter is not SPACES:
        raise UserError(
            f"tag_vocab=captions finds the tags of English captions alone, and vocab.segmenter={segmenter.name} is for "
            "others: set tag_vocab=data, if the data has tags"
        )


def _hard_attention(config: Config) -> None:
    if to_plain(config["decoder"].get("attention")) != "hard":
        return
    if config["objective"]["name"] == "scst":
        raise UserError(
            "objective=scst cannot be combined with decoder.attention=hard, whose sampled locations have no "
            "part in the probability of a caption: use objective=xe or decoder.attention=soft"
        )
    if config["objective"]["name"] == "scheduled_sampling":
        raise UserError(
            "objective=scheduled_sampling cannot be combined with decoder.attention=hard, which is rewarded "
            "for the words it reads: use objective=xe or decoder.attention=soft"
        )


def _segments(config: Config) -> None:
    segments = config["decoder"].get("segments")
    for name in condition_names(config):
        if segments and name not in segments:
            raise UserError(
                f"decoder.segments={list(segments)} does not name {name}, and {name}={config[name]['name']} "
                f"conditions on it: add {name}, or set decoder.segments=[]"
            )


def _refinement(config: Config) -> None:
    rounds = config["refine"]["rounds"]
    if rounds and config["draft"]["name"] == "none":
        raise UserError(
            f"refine.rounds={rounds} feeds captions back as drafts, and draft=none uses none: set e.g. "
            "draft=own, or refine.rounds=0"
        )
    if rounds and config["decoding"].get("num_samples", 1) > 1:
        raise UserError(
            f"refine.rounds={rounds} feeds one caption of an image back, and "
            f"decoding.num_samples={config['decoding']['num_samples']} generates more than one: set either of "
            "them to 0 or 1"
        )


def _flips(config: Config) -> None:
    if config["trainer"]["flip"] and (config["objective"].get("rewards") or {}).get("truth"):
        raise UserError(
            "trainer.flip=true cannot be combined with a reward for truth, which knows what is left and right "
            "in the image as it was drawn: set trainer.flip=false"
        )


def _pixels(config: Config) -> None:
    """Precomputed features cannot be cached, cropped or flipped."""
    off = {"cache_features": "false", "crop": "null", "cached_crops": "null", "flip": "false"}
    needing = [name for name in off if config["trainer"][name] not in (None, False, "auto")]
    if config["encoder"]["name"] == "precomputed" and needing:
        raise UserError(
            f"trainer.{needing[0]} is for encoders that see images, and encoder=precomputed reads features: set "
            f"trainer.{needing[0]}={off[needing[0]]}"
        )


def _stages(config: Config) -> None:
    if config["objective"].get("xe_first") and config["trainer"]["patience"] is None:
        raise UserError(
            "objective.xe_first=true switches to rewards when validation stops improving: set "
            "trainer.patience, e.g. trainer.patience=3"
        )
