"""The frozen encoder by which drafts are retrieved, and the folder of what it made of the training images."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import nn

import easycap.context
from easycap import paths
from easycap.build import build, preprocessing_of, without_downloads
from easycap.config import option_from_text, to_plain
from easycap.context.neighbours import Neighbours
from easycap.data.features import fingerprint
from easycap.data.images import identity
from easycap.data.transforms import Transform
from easycap.runs import checkpoint_of
from easycap.shared import digest_of, made_once
from easycap.training.checkpoint import CONFIG, PREPROCESSING, read_preprocessing
from easycap.types import Example

logger = logging.getLogger(__name__)

_WEIGHTS = "encoder.safetensors"
_CODE = Path(easycap.context.__file__).parent


class FrozenEncoder:
    """An encoder, of the checked group `settings`, that is trained no more: images (N,3,S,S) uint8 -> the mean of their
    cells (N,C). Raises `ValueError` for one that sees no images."""

    def __init__(self, settings: dict[str, Any], encoder: nn.Module, device: torch.device) -> None:
        self.transform = Transform(encoder.preprocessing)
        self.settings, self.preprocessing, self.device = settings, encoder.preprocessing, device
        self.encoder = encoder.eval().requires_grad_(False).to(device)
        self.mean, self.std = (
            255 * torch.tensor(values, device=device).view(3, 1, 1) for values in self.preprocessing[1:3]
        )

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        cells, mask, _ = self.encoder((images.to(self.device) - self.mean) / self.std)
        weight = mask.unsqueeze(-1).to(cells)
        return (cells * weight).sum(1) / weight.sum(1)

    def save(self, folder: Path) -> None:
        save_model(self.encoder, str(folder / _WEIGHTS))
        (folder / CONFIG).write_text(json.dumps(to_plain(self.settings)), encoding="utf-8")
        (folder / PREPROCESSING).write_text(json.dumps(self.preprocessing._asdict()), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> FrozenEncoder:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        seen = read_preprocessing(folder)
        encoder = build(
            "encoder", without_downloads({"encoder": settings, "decoder": {}}, seen.size)["encoder"]
        )
        encoder.preprocessing = seen
        load_model(encoder, str(folder / _WEIGHTS))
        return cls(settings, encoder, device)


def check_retrieval(draft: dict[str, Any]) -> None:
    """Raise `ValueError` if draft=retrieval names no run, or without one no encoder of images."""
    try:
        if draft["run"] is not None:
            checkpoint_of(Path(draft["run"]))
        else:
            Transform(preprocessing_of(option_from_text("encoder", draft["encoder"])))
    except ValueError as error:
        raise ValueError(f"draft.{'encoder' if draft['run'] is None else 'run'}: {error}") from None


def encoder_of_option(text: str, device: torch.device) -> FrozenEncoder:
    """Return the encoder of "option" or "option,key=value,..." with its pretrained weights."""
    settings = option_from_text("encoder", text)
    try:
        return FrozenEncoder(settings, build("encoder", settings), device)
    except ValueError as error:
        raise ValueError(
            f"draft.encoder={text}: {error}; or take the encoder of a run of your own: draft.run=RUN"
        ) from None


def make_neighbours(encoder: FrozenEncoder, examples: Sequence[Example], *, workers: int) -> Path:
    """Return the folder in the cache with the features of training examples; they are encoded once."""
    made_by = fingerprint(encoder.encoder.state_dict().items(), encoder.settings, encoder.preprocessing)
    texts = (f"{identity(e.image)}{e.id}\0{e.references[0]}" for e in examples)
    folder = paths.cache_dir() / "neighbours" / digest_of([made_by, *texts], code=_CODE)

    def make(new: Path) -> None:
        logger.info(
            "features of %s training images, to find neighbours by, go to %s", f"{len(examples):,}", folder
        )
        encoder.save(new)
        Neighbours.store(new, examples, encoder, encoder.transform, workers)

    return made_once(folder, make)


def keep(neighbours: Path, target: Path) -> None:
    """Copy the folder into a run, whole or not at all, unless it is there."""
    if target.is_dir():
        return
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(neighbours, partial)
    partial.rename(target)
