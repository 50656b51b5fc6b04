"""The weights of a checkpoint, and what its encoder expects of images."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from torch import nn

from easycap.errors import UserError
from easycap.models.stored_weights import read_weights, stored_shapes, tied_names
from easycap.runs.find import MODEL
from easycap.types import Preprocessing

ENCODER = "encoder."  # what the names of its weights begin with
PREPROCESSING = "preprocessing.json"


def load_weights(captioner: nn.Module, folder: Path) -> None:
    """Load the weights of a checkpoint into `captioner`; `UserError` if they belong to another model."""
    try:
        stored = read_weights(folder)
        missing, unexpected = captioner.load_state_dict(stored, strict=False)
        tied = tied_names(captioner.state_dict())
        present = {tied.get(name, name) for name in stored}
        missing = [name for name in missing if tied.get(name, name) not in present]
        if missing or unexpected:
            raise RuntimeError(f"missing: {', '.join(missing)}; unexpected: {', '.join(unexpected)}")
    except (RuntimeError, OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{folder / MODEL} cannot be loaded into this model ({reason})") from error


def load_encoder(captioner: nn.Module, folder: Path) -> None:
    """Load the weights of a checkpoint's encoder alone into that of `captioner`, checked by `check_weights`."""
    weights = read_weights(folder, ENCODER)
    captioner.get_submodule("encoder").load_state_dict(
        {name.removeprefix(ENCODER): w for name, w in weights.items()}
    )


def check_weights(captioner: nn.Module, folder: Path, part: str = "") -> None:
    """Raise `UserError` naming the first weight that a checkpoint, or its `part`, and `captioner` do not share."""
    tensors = captioner.state_dict(keep_vars=True)
    own = {name: list(tensor.shape) for name, tensor in tensors.items() if name.startswith(part)}
    stored = stored_shapes(folder, part)
    # A weight that two layers share is stored once.
    tied = {id(tensor) for name, tensor in tensors.items() if name in stored}
    lacking = [name for name in own if name not in stored and id(tensors[name]) not in tied]
    for name in [*stored, *lacking]:
        if own.get(name) != stored.get(name):
            there = f"is {stored[name]} there" if name in stored else "does not exist there"
            here = f"is {own[name]} here" if name in own else "does not exist here"
            raise UserError(
                f"the weights of {folder} belong to another model: {name} {there} and {here}; use the encoder"
                + ("" if part else ", image_tokens and decoder")
                + " settings of that run"
            )


def read_preprocessing(folder: Path) -> Preprocessing | None:
    """Return what the encoder of a checkpoint expects of images, None if it sees none.

    Raises `UserError` if the file that says so is missing or damaged.
    """
    try:
        stored = json.loads((folder / PREPROCESSING).read_text(encoding="utf-8"))
        if stored is None:
            return None
        return Preprocessing(**stored | {name: tuple(stored[name]) for name in ("mean", "std")})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{folder / PREPROCESSING} is missing or damaged ({error}); use another checkpoint"
        ) from None
