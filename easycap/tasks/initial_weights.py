"""Where weights, vocabulary and precision come from: a checkpoint, the run of init_from, or the seed alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from easycap.config.data_locations import with_locations
from easycap.config.schema import check_stored
from easycap.errors import UserError
from easycap.models.build import (
    BuildModel,
    initial_checkpoint,
    model_for_encoder,
    untrained_model,
    with_architecture,
)
from easycap.models.checkpoint import ENCODER, check_weights, load_encoder, load_weights
from easycap.runs.find import CONFIG, task_of
from easycap.training.checkpoint_files import read_progress
from easycap.training.distributed import Ranks
from easycap.training.hardware import Precision, has_bf16, training_precision
from easycap.utils.files import read_mapping

logger = logging.getLogger(__name__)


def saved_vocabulary(config: dict[str, Any], resume_from: Path | None) -> Path | None:
    """Return the folder with the vocabulary that a training must use, None if it builds its own.

    It is that of the checkpoint to resume from, else that of init_from if its run has the
    same task.
    """
    if resume_from is not None:
        return resume_from
    initial = initial_checkpoint(config)
    return initial if initial is not None and task_of(initial) == config["task"] else None


def initial_model(
    build_model: BuildModel, config: dict[str, Any], vocabulary: Any, resume_from: Path | None
) -> Any:
    """Return the model that a training starts with; random weights depend on the seed alone.

    With `resume_from` the weights are left to the trainer. Of an init_from of another task
    the encoder alone is taken.
    """
    torch.manual_seed(config["seed"])
    if resume_from is not None:
        return untrained_model(build_model, config, vocabulary, resume_from)
    initial = initial_checkpoint(config)
    if initial is None:
        return build_model(config, vocabulary)
    if task_of(initial) != config["task"]:
        model = model_for_encoder(build_model, config, vocabulary, initial)
        check_weights(model, initial, ENCODER)
        load_encoder(model, initial)
        logger.info("only the encoder of %s is used: it is a run of another task", initial)
        return model
    model = untrained_model(build_model, config, vocabulary, initial)
    check_weights(model, initial)
    load_weights(model, initial)
    return model


def trained_model(
    build_model: BuildModel,
    config: dict[str, Any],
    vocabulary: Any,
    checkpoint: Path,
    device: torch.device,
) -> Any:
    """Return the model of a checkpoint on `device`, in eval mode."""
    torch.manual_seed(config["seed"])
    model = untrained_model(build_model, config, vocabulary, checkpoint)
    load_weights(model, checkpoint)
    return model.eval().requires_grad_(False).to(device)


def checkpoint_config(
    checkpoint: Path, *, device: str, locations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the config of a checkpoint, for `device` and with data at `locations` {data.root or the like: path}.

    Raises `UserError` if the folder holds no checkpoint.
    """
    file = checkpoint / CONFIG
    if not file.is_file():
        raise UserError(f"{checkpoint} holds no checkpoint ({CONFIG} is missing)")
    try:
        stored = check_stored(OmegaConf.create(read_mapping(file)))
    except UserError as error:
        raise UserError(f"{error} (in {file})") from None
    config = with_locations(stored, locations or {})
    return with_architecture(config | {"device": device})


def precision_of_run(
    config: dict[str, Any], resume_from: Path | None, device: torch.device, ranks: Ranks
) -> Precision:
    """Return the precision to train in, never auto; a resumed run keeps the one it started with.

    All ranks must call it: CPUs may differ, and rank 0 decides.
    """
    began = read_progress(resume_from).get("precision") if resume_from is not None else None
    if began is None:
        return ranks.broadcast(training_precision(Precision(config["trainer"]["precision"]), device))
    if Precision(began) is Precision.bf16 and not has_bf16(device):
        logger.warning(
            "resuming in bf16, as this run started; %s only emulates it, so training will be slow", device
        )
    return Precision(began)
