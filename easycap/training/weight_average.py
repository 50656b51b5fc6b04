"""The mean of the weights of several checkpoints, written as a checkpoint of its own."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from easycap.errors import UserError
from easycap.models.checkpoint import PREPROCESSING
from easycap.models.stored_weights import link_frozen_or_copy, stored_shapes, weight_files
from easycap.runs.find import MODEL, shown
from easycap.training.checkpoint_files import TRAINING
from easycap.utils.checksums import CHECKSUMS, damage, known_checksums, write_checksums


def save_average(checkpoints: Sequence[Path], folder: Path) -> None:
    """Write the checkpoint `folder`: the last of `checkpoints` with the mean of the weights of all.

    BatchNorm statistics are averaged too; integers are those of the last. Equal weights stay bit-identical.
    Raises `UserError` if the checkpoints have different weights or preprocessing, or if one is damaged.
    """
    last = checkpoints[-1]
    for one in checkpoints:
        if reason := damage(one):
            raise UserError(f"{shown(one)} is damaged: {reason}")
    for other in checkpoints[:-1]:
        if (other / PREPROCESSING).read_text(encoding="utf-8") != (last / PREPROCESSING).read_text(
            encoding="utf-8"
        ):
            raise UserError(
                f"{shown(other)} and {shown(last)} preprocess images differently: average runs with the same encoder"
            )
    shared = set.intersection(*({file.name for file in weight_files(one)} for one in checkpoints)) - {MODEL}
    try:
        averages, metadata = _averages(checkpoints, shared)
    except (OSError, SafetensorError) as error:
        raise UserError(f"a checkpoint's weights are missing or damaged ({error})") from None
    others = [file.name for file in weight_files(last) if file.name not in shared]
    ignored = shutil.ignore_patterns(*others, TRAINING, CHECKSUMS)
    shutil.copytree(last, folder, ignore=ignored, copy_function=link_frozen_or_copy)
    save_file(averages, folder / MODEL, metadata=metadata)
    write_checksums(folder, known_checksums(last / name for name in shared))


def _averages(
    checkpoints: Sequence[Path], shared: Collection[str]
) -> tuple[dict[str, torch.Tensor], dict[str, str] | None]:
    """The mean of each weight, and the last file's metadata (which weights are tied).

    Left out are those in the files `shared`, frozen and the same in all.
    """
    shapes = [stored_shapes(one) for one in checkpoints]
    for checkpoint, own in zip(checkpoints, shapes, strict=True):
        for name in [*shapes[-1], *own]:
            if own.get(name) != shapes[-1].get(name):
                raise UserError(
                    f"{shown(checkpoint)} and {shown(checkpoints[-1])} are different models: {name} is "
                    f"{own.get(name, 'missing')} and {shapes[-1].get(name, 'missing')}"
                )
    with ExitStack() as opened:
        found: list[dict[str, Any]] = []  # of each checkpoint {name: the open file that has it}
        for one in checkpoints:
            found.append({})
            for path in weight_files(one):
                file = opened.enter_context(safe_open(path, framework="pt"))
                if path.name not in shared:
                    found[-1] |= dict.fromkeys(file.keys(), file)
        means = {name: _mean([files[name].get_tensor(name) for files in found]) for name in found[-1]}
        return means, opened.enter_context(safe_open(checkpoints[-1] / MODEL, framework="pt")).metadata()


def _mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean in the widest type of all; equal tensors as they are."""
    last = tensors[-1]
    if not last.is_floating_point() or all(torch.equal(last, tensor) for tensor in tensors):
        return last
    total = torch.zeros_like(last, dtype=torch.float64)
    for tensor in tensors:
        total += tensor
    return (total / len(tensors)).to(torch.promote_types(last.dtype, torch.float32))
