"""Checkpoints: tensors in safetensors, the rest in JSON; nothing is pickled, nothing is left half written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

from easycap.training.optim import Optimization
from easycap.types import Vocabulary

MODEL, CONFIG, OPTIMIZER, PROGRESS = (
    "model.safetensors",
    "config.json",
    "optimizer.safetensors",
    "progress.json",
)


def save_checkpoint(
    folder: Path,
    captioner: nn.Module,
    vocabulary: Vocabulary,
    config: dict[str, Any],
    *,
    optimization: Optimization | None = None,
    progress: dict[str, Any] | None = None,
) -> None:
    """Write weights, vocabulary and config, and with `optimization` what resuming needs, as one folder.

    The folder appears whole or not at all. Of checkpoints that training can go on from, the one replaced is kept as
    `<name>.previous` until the next save.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a kill left behind
    partial.mkdir(parents=True)
    save_model(captioner, str(partial / MODEL))
    vocabulary.save(partial)
    (partial / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
    if optimization is not None:
        tensors, scalars = _flatten(optimization.state_dict())
        save_file(tensors | _rng_tensors(), str(partial / OPTIMIZER))
        (partial / PROGRESS).write_text(
            json.dumps({"progress": progress, "optimizer": scalars}), encoding="utf-8"
        )
    _sync(partial)
    previous = folder.with_name(f"{folder.name}.previous")
    shutil.rmtree(previous, ignore_errors=True)
    if folder.exists():
        folder.rename(previous)
    partial.rename(folder)
    if optimization is None:
        shutil.rmtree(previous, ignore_errors=True)


def load_weights(captioner: nn.Module, folder: Path) -> None:
    """Load the weights of a checkpoint into `captioner`; `ValueError` if they belong to another model."""
    try:
        load_model(captioner, str(folder / MODEL))
    except (RuntimeError, OSError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ValueError(f"{folder / MODEL} cannot be loaded into this model ({reason})") from error


def load_training(optimization: Optimization, folder: Path) -> dict[str, Any]:
    """Restore optimiser and random states from a checkpoint and return its progress."""
    if not (folder / PROGRESS).is_file():
        raise ValueError(f"{folder} has no {PROGRESS}: it can be evaluated but training cannot go on from it")
    try:
        stored = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        tensors = load_file(str(folder / OPTIMIZER))
    except (ValueError, OSError, SafetensorError) as error:
        raise ValueError(
            f"{folder} is damaged ({str(error)[:120]}); remove it to go on from the one before"
        ) from None
    torch.set_rng_state(tensors.pop("rng.cpu"))
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    tensors.pop("rng.cuda", None)
    optimization.load_state_dict(_unflatten(tensors, stored["optimizer"]))
    return stored["progress"]


def newest(folder: Path) -> Path | None:
    """Return `folder`, else the one it replaced (a kill between two renames leaves only that), else None."""
    for candidate in (folder, folder.with_name(f"{folder.name}.previous")):
        if (candidate / MODEL).is_file():
            return candidate
    return None


def _rng_tensors() -> dict[str, torch.Tensor]:
    tensors = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    return tensors


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


def _sync(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
