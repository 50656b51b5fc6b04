"""Checkpoints: tensors in safetensors, the rest in JSON; nothing is pickled, nothing is left half written."""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from easycap.errors import UserError
from easycap.models.checkpoint import PREPROCESSING
from easycap.models.image_model import ImageModel
from easycap.models.stored_weights import split_frozen, weight_files
from easycap.runs.find import CONFIG, MODEL
from easycap.training.frozen_files import FrozenFiles
from easycap.training.optim import Optimization
from easycap.types import Vocabulary
from easycap.utils.checksums import damage, known_checksums, write_checksums
from easycap.utils.files import write_atomically
from easycap.utils.paths import share_as_usual

logger = logging.getLogger(__name__)

TRAINING = "training.safetensors"
PROGRESS = "progress.json"


@dataclass(frozen=True)
class Whole:
    """All weights by name and all `states` of the optimisers, gathered from ranks that have a part of each."""

    weights: dict[str, torch.Tensor]
    states: list[dict]


def save_checkpoint(
    folder: Path,
    captioner: ImageModel,
    vocabulary: Vocabulary,
    config: dict[str, Any],
    *,
    progress: dict[str, Any],
    optimization: Optimization | None = None,
    tensors: dict[str, torch.Tensor] | None = None,
    frozen_files: FrozenFiles | None = None,
    whole: Whole | None = None,
) -> None:
    """Write weights, vocabulary, config, preprocessing and progress as one folder, with `optimization` to resume.

    `tensors` are stored next to the optimiser's; `whole` is given if ranks have a part each of weights and states.
    Frozen weights that another checkpoint already has are hard-linked; `frozen_files` remembers their files between
    calls. The folder appears whole or not at all, with checksums of its files. Of checkpoints that can be resumed, the
    one replaced is kept as `<name>.previous` until the next save. Raises `UserError` if the disk has no room for it;
    what was there stays.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a kill left behind
    files = frozen_files or FrozenFiles()
    trained, parts, tied = split_frozen(captioner, None if whole is None else whole.weights)
    frozen = files.find(parts, folder)
    needed = checkpoint_bytes(captioner, optimization is not None) + sum(part.new_bytes for part in frozen)
    check_space(folder.parent, needed)
    partial.mkdir(parents=True)
    linked = [one for part in frozen if (one := files.store(part, partial)) is not None]
    save_file({name: t.contiguous() for name, t in trained.items()}, partial / MODEL, metadata=tied or None)
    vocabulary.save(partial)
    (partial / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
    pixels = captioner.encoder.preprocessing
    (partial / PREPROCESSING).write_text(json.dumps(pixels and pixels._asdict()), encoding="utf-8")
    stored: dict[str, Any] = {"progress": progress}
    if optimization is not None:
        states, stored["optimizer"] = _flatten(optimization.state_dict() if whole is None else whole.states)
        save_file(states | (tensors or {}), str(partial / TRAINING))
    (partial / PROGRESS).write_text(json.dumps(stored), encoding="utf-8")
    write_checksums(partial, known_checksums(linked))
    share_as_usual(*(file for file in partial.iterdir() if file.name not in {one.name for one in linked}))
    _sync(*partial.iterdir(), partial)
    previous = _previous(folder)
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
        folder.rename(previous)
    partial.rename(folder)
    _sync(folder.parent)
    if optimization is None:
        shutil.rmtree(previous, ignore_errors=True)


def load_training(optimization: Optimization, folder: Path) -> dict[str, torch.Tensor]:
    """Restore the optimiser from a checkpoint and return the tensors that were stored next to it."""
    if not (folder / TRAINING).is_file():
        raise UserError(f"{folder} has no {TRAINING}: it can be evaluated but not resumed")
    tensors = load_file(str(folder / TRAINING))
    scalars = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))["optimizer"]
    states = {name: tensors.pop(name) for name in list(tensors) if name[0].isdigit()}
    optimization.load_state_dict(_unflatten(states, scalars))
    return tensors


def read_progress(folder: Path) -> dict[str, Any]:
    """Return the training progress that a checkpoint has stored; `UserError` if it cannot be read."""
    try:
        return json.loads((folder / PROGRESS).read_text(encoding="utf-8"))["progress"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} is not a training checkpoint, or it is damaged ({error!r})") from None


def newest(folder: Path) -> Path | None:
    """Return the checkpoint `folder`, or the one it replaced if it is damaged or missing; None if there is neither.

    A kill between two renames leaves only the one before. `UserError` if nothing but damaged ones is left.
    """
    damaged: list[str] = []
    for candidate in (folder, _previous(folder)):
        if not candidate.is_dir():
            continue
        reason = _damage(candidate)
        if reason is None:
            if damaged:
                logger.warning("%s: resuming from %s", damaged[0], candidate.name)
            return candidate
        damaged.append(f"{candidate} is damaged ({reason})")
    if damaged:
        raise UserError(f"{' and '.join(damaged)}: remove {folder.parent} to start from scratch")
    return None


def checkpoint_to_resume(run: Path) -> Path | None:
    """Return the checkpoint to resume a run from, None in a new run, and make the run's folder agree with it.

    What was logged after the checkpoint will be logged again, so those lines of metrics.jsonl are removed.
    """
    checkpoints, metrics = run / "checkpoints", run / "metrics.jsonl"
    remove_leftovers(checkpoints, finished=False)
    for path in run.glob(".*.partial"):
        if path.is_file():  # a half-copied folder is copied again
            path.unlink()
    resume_from = newest(checkpoints / "last")
    logged = 0 if resume_from is None else read_progress(resume_from)["logged"]
    if metrics.is_file():
        lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
        write_atomically(metrics, "".join(lines[:logged]))
    return resume_from


def remove_leftovers(checkpoints: Path, *, finished: bool) -> None:
    """Remove half-written checkpoints of a killed run; of a finished one also what was kept to fall back on."""
    for folder in [*checkpoints.glob(".*.partial"), *(checkpoints.glob("*.previous") if finished else ())]:
        shutil.rmtree(folder, ignore_errors=True)


def checkpoint_bytes(captioner: ImageModel, with_optimizer: bool) -> int:
    """Return about how many bytes a checkpoint has besides frozen weights: those that are trained, up to four times.

    Two for AdamW's moments and one for averaged weights.
    """
    trained = sum(map(_bytes, (p for p in captioner.parameters() if p.requires_grad)))
    return sum(map(_bytes, split_frozen(captioner)[0].values())) + (3 * trained if with_optimizer else 0)


def frozen_bytes(captioner: ImageModel) -> int:
    """Return how many bytes the frozen weights of a run take at most, which its checkpoints share."""
    return sum(_bytes(tensor) for part in split_frozen(captioner)[1] for tensor in part.values())


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def check_space(folder: Path, needed: int) -> None:
    """Raise `UserError` unless the disk of `folder` has `needed` bytes free."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise UserError(
            f"checkpoints in {folder} need {_megabytes(needed)} but its disk has {_megabytes(free)} free: make room, "
            "or choose another disk with EASYCAP_OUTPUTS"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def _previous(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.previous")


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint to resume; one without checksums is of an earlier version."""
    try:
        if reason := damage(folder):
            return reason
        if "optimizer" not in json.loads((folder / PROGRESS).read_text(encoding="utf-8")):
            return f"{PROGRESS} has no optimizer state"
        for file in (*weight_files(folder), folder / TRAINING):
            with safe_open(file, framework="pt") as opened:
                opened.keys()
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
        if os.name == "nt" and path.is_dir():  # no folder can be opened there
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
