"""Before any work: the components of a config built without data, so that wrong settings fail here."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from easycap.conditioning.conditions import build_conditions
from easycap.config.instantiate import build, check_settings, condition_names, special_ids, trackers_of
from easycap.config.schema import to_plain
from easycap.errors import UserError
from easycap.metrics.rewards import rewarded
from easycap.models.build import (
    initial_checkpoint,
    model_for_encoder,
    untrained_model,
    with_architecture,
    without_downloads,
)
from easycap.models.captioner import Captioner
from easycap.models.checkpoint import ENCODER, check_weights
from easycap.models.word_vectors import read_word_vectors
from easycap.runs.find import task_of
from easycap.tasks.create import check_metrics, task_class
from easycap.tasks.memory_estimate import check_memory
from easycap.training.hardware import Precision, pick_device, training_precision


def model_on_meta(config: dict[str, Any]) -> Any:
    """Return a checked config's model on the meta device, with a placeholder vocabulary if there is none yet.

    Raises `UserError` as its components do, and for weights of init_from that have no place in it.
    """
    task_cls = task_class(config)
    vocabulary: Any = task_cls.vocabulary_without_data(config) or PlaceholderVocabulary()
    initial = None if config["resume"] else initial_checkpoint(config)
    build_model = task_cls.build_from_config
    with torch.device("meta"):
        if initial is None:
            return build_model(without_downloads(with_architecture(config)), vocabulary)
        if task_of(initial) != config["task"]:
            untrained = without_downloads(with_architecture(config))
            model = model_for_encoder(build_model, untrained, vocabulary, initial)
            check_weights(model, initial, ENCODER)
        else:
            vocabulary = task_cls.load_vocabulary(config, initial)
            model = untrained_model(build_model, with_architecture(config), vocabulary, initial)
            check_weights(model, initial)
    return model


def dry_run(config: dict[str, Any], *, memory: bool = False) -> None:
    """Build every component that needs no data, with the model on the meta device, so that wrong settings fail early.

    Raises `UserError` as the components do, and with `memory` for a run that needs more memory than available.
    """
    model = _checked_model(config)
    _build_training(config)
    _build_text(config)
    if memory:
        check_memory(config, model, model_on_meta)


class DryRuns:
    """Dry runs of many configs, as those of a sweep: what several have in common, such as the model, is built once."""

    def __init__(self) -> None:
        self._passed: set[str] = set()

    def __call__(self, config: dict[str, Any]) -> None:
        """Raise `UserError` as `dry_run` does."""
        conditions = condition_names(config)
        model = {key: config[key] for key in _OF_MODEL} | {
            name: {key: value for key, value in config[name].items() if key != "seed"} for name in conditions
        }
        training = {key: config[key] for key in _OF_TRAINING}
        text = {key: value for key, value in config.items() if key not in _NOT_OF_TEXT}
        for check, settings in ((_checked_model, model), (_build_training, training), (_build_text, text)):
            digest = json.dumps([check.__name__, to_plain(settings)], sort_keys=True)
            if digest not in self._passed:
                check(config)
                self._passed.add(digest)


# The settings that each part of a dry run reads, other than those of text conditions.
_OF_MODEL = (
    "task",
    "captioner",
    "vocab",
    "encoder",
    "image_tokens",
    "decoder",
    "tagger",
    "resume",
    "init_from",
)
_OF_TRAINING = ("schedule", "trainer", "optim", "validation", "tracking", "device", "resume")
_NOT_OF_TEXT = ("seed", "device", "schedule", "optim", "tracking", "image_tokens")


def _checked_model(config: dict[str, Any]) -> Any:
    model = model_on_meta(config)
    source = config["captioner"].get("word_vectors")
    if source is not None and not config["resume"]:
        initial = initial_checkpoint(config)
        if initial is None or task_of(initial) != config["task"]:  # else the stored weights have the words
            read_word_vectors(source)
    if isinstance(model, Captioner) and not config["resume"]:
        _check_positions(config, model)
    return model


def _build_training(config: dict[str, Any]) -> None:
    factor = build("schedule", config["schedule"], total_steps=1000)
    build("trainer", config["trainer"])
    build("optim", config["optim"])(_PlaceholderModel(), factor)
    build("validation", config["validation"])
    for tracker in trackers_of(config):  # which are made with the run's folder
        check_settings("tracking", tracker)
    device = pick_device(config["device"])
    if not config["resume"]:  # a resumed run keeps its precision
        training_precision(Precision(config["trainer"]["precision"]), device)


def _build_text(config: dict[str, Any]) -> None:
    """Vocabulary, text conditions, decoding, objective and metrics."""
    vocabulary: Any = PlaceholderVocabulary()
    if not config["resume"]:  # a resumed run has its vocabulary
        task_class(config).check_vocabulary(config)
    resumed = Path(config["resume"]) if config["resume"] else None
    conditions = build_conditions(config, read_splits=dict, run=resumed, device=torch.device("cpu"))
    conditions.validate(config)
    build("refine", config["refine"])
    no_data = {
        "document_frequencies": dict,
        "nearest_captions": list,
    }  # not called before a caption is wanted
    build("decoding", config["decoding"], vocabulary=vocabulary, **no_data)
    build(
        "objective",
        config["objective"],
        vocabulary=vocabulary,
        make_rewards=lambda weights, eos: rewarded(weights),  # the rest of them needs the data
        **special_ids(vocabulary),
    )
    check_metrics(config)


def _check_positions(config: dict[str, Any], captioner: Captioner) -> None:
    """Raise `UserError` if the image and the longest conditioning text could be more than the decoder can read."""
    positions = getattr(captioner.decoder, "max_positions", None)
    if positions is None or not captioner.context:
        return
    grid = captioner.encoder.grid if config["image_tokens"]["name"] == "all" else None
    # of an unknown number of regions at least one
    image = config["image_tokens"].get("count") or (math.prod(grid) if grid else 1)
    words = captioner.decoder.max_length
    context = image + sum(config[name]["max_length"] for name in captioner.context)
    if context + words > positions:
        parts = " and ".join(f"{name}.max_length={config[name]['max_length']}" for name in captioner.context)
        raise UserError(
            f"{image} image tokens, {parts} do not fit into decoder.max_positions={positions}, of which "
            f"decoder.max_length={words} are for the caption: set decoder.max_positions={context + words}, or lower "
            f"{' or '.join(f'{name}.max_length' for name in captioner.context)}"
        )


class PlaceholderVocabulary:
    """Stands in for a vocabulary, of words or of tags, that is not built yet."""

    pad_id, bos_id, eos_id, unk_id = range(4)
    tags = range(997)

    def __len__(self) -> int:
        return 1000

    def encode(self, text: str) -> list[int]:
        """Return no ids."""
        return []


class _PlaceholderModel(torch.nn.Module):
    """The smallest thing that an optimiser can be made for."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Linear(2, 2)
