"""Weights in files: model.safetensors for those that are trained, and a file for each part that is frozen.

A frozen part is a top-level module (encoder, decoder, ...). Its file, frozen-<hash>.safetensors, is named by its
content, so that checkpoints and runs can share it by hard links while each folder stays complete by itself.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from easycap.runs.find import MODEL

Tensors = dict[str, torch.Tensor]

_FROZEN = "frozen-*.safetensors"


def weight_files(folder: Path) -> list[Path]:
    """Return the files that together hold the weights of a checkpoint, model.safetensors first."""
    return [folder / MODEL, *sorted(folder.glob(_FROZEN))]


def link_frozen_or_copy(source: str | Path, target: str | Path) -> str | Path:
    """Copy a file, or link it if it holds frozen weights and the disk has hard links; return `target`."""
    if fnmatch(Path(source).name, _FROZEN):
        with suppress(OSError):
            os.link(source, target)
            return target
    shutil.copy2(source, target)
    return target


def read_weights(folder: Path, prefix: str = "") -> Tensors:
    """Return the weights of a checkpoint whose names start with `prefix`, each as it is stored.

    Raises `OSError` or `SafetensorError` if they cannot be read.
    """
    if not prefix:
        return {name: tensor for file in weight_files(folder) for name, tensor in load_file(file).items()}
    found: Tensors = {}
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as opened:
            names = [name for name in opened.keys() if name.startswith(prefix)]  # noqa: SIM118  it is not a dict
            found |= {name: opened.get_tensor(name) for name in names}
    return found


def stored_shapes(folder: Path, prefix: str = "") -> dict[str, list[int]]:
    """Return {name: shape} of the weights of a checkpoint whose names start with `prefix`."""
    found: dict[str, list[int]] = {}
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as opened:
            names = [name for name in opened.keys() if name.startswith(prefix)]  # noqa: SIM118  it is not a dict
            found |= {name: opened.get_slice(name).get_shape() for name in names}
    return found


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write model.safetensors with all weights; those that fit into 16 bits exactly take no more."""
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    tied = tied_names(tensors)
    stored = {name: in_own_precision(t).contiguous() for name, t in tensors.items() if name not in tied}
    save_file(stored, folder / MODEL, metadata=tied or None)


def tied_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return {name: the name it is stored under} of tensors that share another's memory; the first name is stored."""
    first: dict[tuple, str] = {}
    tied = {}
    for name in sorted(tensors):
        tensor = tensors[name]
        if tensor.numel():
            kept = first.setdefault((tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride()), name)
            if kept != name:
                tied[name] = kept
    return tied


def frozen_names(model: nn.Module) -> set[str]:
    """Return the names of the weights that are not trained, and of the buffers of modules without a trained weight."""
    frozen = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        trained = tensor.requires_grad if isinstance(tensor, nn.Parameter) else _is_of_trained(model, name)
        if not trained:
            frozen.add(name)
    return frozen


def _is_of_trained(model: nn.Module, buffer: str) -> bool:
    """Whether the module of a buffer, or the closest one around it that has weights, has a trained one."""
    path = buffer
    while path:
        path = path.rpartition(".")[0]
        weights = list(model.get_submodule(path).parameters())
        if weights:
            return any(weight.requires_grad for weight in weights)
    return True


def split_frozen(
    model: nn.Module, weights: Mapping[str, torch.Tensor] | None = None
) -> tuple[Tensors, list[Tensors], dict[str, str]]:
    """Return the trained weights of a model, those of each frozen part, and {tied name: stored name}.

    `weights` are its state, by default what it has itself.
    """
    state = model.state_dict() if weights is None else weights
    tensors: Tensors = {name: tensor.detach() for name, tensor in state.items()}
    tied, frozen = tied_names(tensors), frozen_names(model)
    trained: Tensors = {}
    parts: dict[str, Tensors] = {}
    for name, tensor in tensors.items():
        if name not in tied:
            part = parts.setdefault(name.partition(".")[0], {}) if name in frozen else trained
            part[name] = tensor
    return trained, list(parts.values()), tied


def in_own_precision(tensor: torch.Tensor) -> torch.Tensor:
    """Return the values of a tensor in 16 bits if that is exact, as for weights that were published so; else itself."""
    if tensor.dtype is not torch.float32:
        return tensor
    for dtype in (torch.bfloat16, torch.float16):
        if _fits(tensor.flatten()[:256], dtype) and _fits(tensor, dtype):
            return tensor.to(dtype)
    return tensor


def _fits(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    return torch.equal(tensor.to(dtype).to(tensor.dtype), tensor)


def frozen_file(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the name of the file of a frozen part: it has 32 digits of a SHA-256 of all that is stored."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        stored = in_own_precision(tensors[name])
        digest.update(f"{name}\0{stored.dtype}\0{list(stored.shape)}\0".encode())
        digest.update(stored.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return _FROZEN.replace("*", digest.hexdigest()[:32])
