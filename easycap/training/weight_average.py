"""The mean of the weights of several checkpoints, written as a checkpoint of its own."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from easycap.errors import UserError
from easycap.models.checkpoint import PREPROCESSING
from easycap.runs.find import MODEL, shown
from easycap.training.checkpoint_files import TRAINING
from easycap.utils.checksums import CHECKSUMS, damage, write_checksums


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
    averages, metadata = _averages(checkpoints)
    shutil.copytree(last, folder, ignore=shutil.ignore_patterns(MODEL, TRAINING, CHECKSUMS))
    save_file(averages, folder / MODEL, metadata=metadata)
    write_checksums(folder)


def _averages(checkpoints: Sequence[Path]) -> tuple[dict[str, torch.Tensor], dict[str, str] | None]:
    """The mean of each weight, in the weight's own type, and the last file's metadata (which weights are tied)."""
    with ExitStack() as opened:
        try:
            files = [opened.enter_context(safe_open(one / MODEL, framework="pt")) for one in checkpoints]
        except (OSError, SafetensorError) as error:
            raise UserError(f"a checkpoint's {MODEL} is missing or damaged ({error})") from None
        shapes = [{name: file.get_slice(name).get_shape() for name in file.keys()} for file in files]  # noqa: SIM118
        for checkpoint, own in zip(checkpoints, shapes, strict=True):
            for name in [*shapes[-1], *own]:
                if own.get(name) != shapes[-1].get(name):
                    raise UserError(
                        f"{shown(checkpoint)} and {shown(checkpoints[-1])} are different models: {name} is "
                        f"{own.get(name, 'missing')} and {shapes[-1].get(name, 'missing')}"
                    )
        return {name: _mean([file.get_tensor(name) for file in files]) for name in shapes[-1]}, files[
            -1
        ].metadata()


def _mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    last = tensors[-1]
    if not last.is_floating_point():
        return last
    total = torch.zeros_like(last, dtype=torch.float64)
    for tensor in tensors:
        total += tensor
    return (total / len(tensors)).to(last.dtype)
