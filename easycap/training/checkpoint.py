"""Checkpoints: tensors in safetensors, the rest in JSON; nothing is pickled, nothing is left half written."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

from easycap.training.optim import Optimization
from easycap.types import Preprocessing, Vocabulary

logger = logging.getLogger(__name__)

ENCODER = "encoder."  # what the names of its weights begin with
MODEL, CONFIG, PREPROCESSING, TRAINING, PROGRESS = (
    "model.safetensors",
    "config.json",
    "preprocessing.json",
    "training.safetensors",
    "progress.json",
)


def save_checkpoint(
    folder: Path,
    captioner: nn.Module,
    vocabulary: Vocabulary,
    config: dict[str, Any],
    *,
    progress: dict[str, Any],
    optimization: Optimization | None = None,
    tensors: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write weights, vocabulary, config, preprocessing and progress as one folder, with `optimization` to resume.

    `tensors` are kept beside the optimiser's. The folder appears whole or not at all. Of checkpoints that training can
    go on from, the one replaced is kept as `<name>.previous` until the next save. Raises `ValueError` if the disk has
    no room for it; what was there stays.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a kill left behind
    check_space(folder.parent, checkpoint_bytes(captioner, optimization is not None))
    partial.mkdir(parents=True)
    save_model(captioner, str(partial / MODEL))
    vocabulary.save(partial)
    (partial / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
    pixels = captioner.encoder.preprocessing
    (partial / PREPROCESSING).write_text(json.dumps(pixels and pixels._asdict()), encoding="utf-8")
    stored: dict[str, Any] = {"progress": progress}
    if optimization is not None:
        states, stored["optimizer"] = _flatten(optimization.state_dict())
        save_file(states | (tensors or {}), str(partial / TRAINING))
    (partial / PROGRESS).write_text(json.dumps(stored), encoding="utf-8")
    _sync(*partial.iterdir(), partial)
    previous = _previous(folder)
    shutil.rmtree(previous, ignore_errors=True)
    if folder.exists():
        folder.rename(previous)
    partial.rename(folder)
    _sync(folder.parent)
    if optimization is None:
        shutil.rmtree(previous, ignore_errors=True)


def load_weights(captioner: nn.Module, folder: Path) -> None:
    """Load the weights of a checkpoint into `captioner`; `ValueError` if they belong to another model."""
    try:
        load_model(captioner, str(folder / MODEL))
    except (RuntimeError, OSError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ValueError(f"{folder / MODEL} cannot be loaded into this model ({reason})") from error


def load_encoder(captioner: nn.Module, folder: Path) -> None:
    """Load the weights of a checkpoint's encoder alone into that of `captioner`, checked by `check_weights`."""
    with safe_open(folder / MODEL, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys() if name.startswith(ENCODER)}
    captioner.encoder.load_state_dict({name.removeprefix(ENCODER): w for name, w in weights.items()})


def task_of(folder: Path) -> str:
    """Return the task of a checkpoint's model, caption or tags; `ValueError` or `OSError` if it cannot be read."""
    return json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("task", "caption")


def check_weights(captioner: nn.Module, folder: Path, part: str = "") -> None:
    """Raise `ValueError` naming the first weight of a checkpoint, or of its `part`, with no place in `captioner`."""
    own = {name: list(tensor.shape) for name, tensor in captioner.state_dict().items()}
    with safe_open(folder / MODEL, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(part)]
        stored = {name: file.get_slice(name).get_shape() for name in names}
    for name, shape in stored.items():
        if own.get(name) != shape:
            here = f"{own[name]} here" if name in own else "does not exist here"
            raise ValueError(
                f"the weights of {folder} are of another model: {name} is {shape} there and {here}; take the encoder"
                + ("" if part else ", image_tokens and decoder")
                + " settings of that run"
            )


def read_preprocessing(folder: Path) -> Preprocessing | None:
    """Return what the encoder of a checkpoint expects of images, None if it sees none.

    Raises `ValueError` if the file that says so is missing or damaged.
    """
    try:
        stored = json.loads((folder / PREPROCESSING).read_text(encoding="utf-8"))
        if stored is None:
            return None
        return Preprocessing(**stored | {name: tuple(stored[name]) for name in ("mean", "std")})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{folder / PREPROCESSING} is missing or damaged ({error}); use another checkpoint"
        ) from None


def load_training(optimization: Optimization, folder: Path) -> dict[str, torch.Tensor]:
    """Restore the optimiser from a checkpoint and return the tensors that were kept beside it."""
    if not (folder / TRAINING).is_file():
        raise ValueError(f"{folder} has no {TRAINING}: it can be evaluated but training cannot go on from it")
    tensors = load_file(str(folder / TRAINING))
    scalars = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))["optimizer"]
    states = {name: tensors.pop(name) for name in list(tensors) if name[0].isdigit()}
    optimization.load_state_dict(_unflatten(states, scalars))
    return tensors


def read_progress(folder: Path) -> dict[str, Any] | None:
    """Return how far the training had come that wrote this checkpoint; None where there is no readable one."""
    try:
        return json.loads((folder / PROGRESS).read_text(encoding="utf-8"))["progress"]
    except (OSError, ValueError, KeyError):
        return None


def newest(folder: Path) -> Path | None:
    """Return the checkpoint `folder`, or the one it replaced if it is damaged or missing; None if there is neither.

    A kill between two renames leaves only the one before. `ValueError` if nothing but damaged ones is left.
    """
    damaged = []
    for candidate in (folder, _previous(folder)):
        if not candidate.is_dir():
            continue
        reason = _damage(candidate)
        if reason is None:
            if damaged:
                logger.warning("%s: going on from %s", damaged[0], candidate.name)
            return candidate
        damaged.append(f"{candidate} is damaged ({reason})")
    if damaged:
        raise ValueError(f"{' and '.join(damaged)}: remove {folder.parent} to start again from nothing")
    return None


def remove_leftovers(checkpoints: Path, *, finished: bool) -> None:
    """Remove half-written checkpoints of a killed run; of a finished one also what was kept to fall back on."""
    for folder in [*checkpoints.glob(".*.partial"), *(checkpoints.glob("*.previous") if finished else ())]:
        shutil.rmtree(folder, ignore_errors=True)


def checkpoint_bytes(captioner: nn.Module, with_optimizer: bool) -> int:
    """Return about how many bytes a checkpoint has: the weights, and up to three times those that are trained.

    Two for AdamW's moments and one for averaged weights.
    """
    weights = sum(t.numel() * t.element_size() for t in captioner.state_dict().values())
    trained = sum(p.numel() * p.element_size() for p in captioner.parameters() if p.requires_grad)
    return weights + (3 * trained if with_optimizer else 0)


def check_space(folder: Path, needed: int) -> None:
    """Raise `ValueError` unless the disk of `folder` has `needed` bytes free."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise ValueError(
            f"checkpoints in {folder} need {_megabytes(needed)} but its disk has {_megabytes(free)} free: make room, "
            "or choose another disk with EASYCAP_OUTPUTS"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def _previous(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.previous")


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint that training should go on from; safetensors notices a file cut short."""
    try:
        if "optimizer" not in json.loads((folder / PROGRESS).read_text(encoding="utf-8")):
            return f"{PROGRESS} says nothing of an optimizer"
        for name in (MODEL, TRAINING):
            with safe_open(folder / name, framework="pt") as file:
                file.keys()
    except (OSError, ValueError, SafetensorError) as error:
        return " ".join(str(error).split())[:120]
    return None


def _flatten(states: list[dict]) -> tuple[dict[str, torch.Tensor], list[dict]]:
    """Split optimiser states into tensors, named "<optimiser>.<parameter>.<key>", and what JSON can hold."""
    tensors: dict[str, torch.Tensor] = {}
    scalars = []
    for number, state in enumerate(states):
        rest: dict[str, dict] = {}
        for param, values in state["state"].items():
            for key, value in values.items():
                if torch.is_tensor(value):
                    tensors[f"{number}.{param}.{key}"] = value.contiguous()
                else:
                    rest.setdefault(str(param), {})[key] = value
        scalars.append({"param_groups": state["param_groups"], "state": rest})
    return tensors, scalars


def _unflatten(tensors: dict[str, torch.Tensor], scalars: list[dict]) -> list[dict]:
    states = [
        {"param_groups": s["param_groups"], "state": {int(p): dict(v) for p, v in s["state"].items()}}
        for s in scalars
    ]
    for name, tensor in tensors.items():
        number, param, key = name.split(".", 2)
        states[int(number)]["state"].setdefault(int(param), {})[key] = tensor
    return states


def _sync(*paths: Path) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
