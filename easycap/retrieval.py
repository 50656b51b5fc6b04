"""The frozen encoder by which drafts are retrieved, and the folder of what it made of the training images."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import save_model

import easycap.data
from easycap import paths
from easycap.build import build, preprocessing_of, without_downloads
from easycap.config import check_group, option_from_text, to_plain
from easycap.context.neighbours import Neighbours
from easycap.data.features import fingerprint
from easycap.data.images import identity
from easycap.data.transforms import Transform
from easycap.models.image_model import ImageModel
from easycap.runs import checkpoint_of
from easycap.shared import digest_of, made_once
from easycap.training.checkpoint import CONFIG, MODEL, PREPROCESSING, load_encoder, read_preprocessing
from easycap.types import Encoder, Example

logger = logging.getLogger(__name__)

_CODE = Path(easycap.data.__file__).parent  # it makes the pixels that are encoded


class FrozenEncoder:
    """An encoder, of the checked group `settings`, that is trained no more: images (N,3,S,S) uint8 -> the mean of their
    cells (N,C). Raises `ValueError` for one that sees no images."""

    def __init__(self, settings: dict[str, Any], encoder: Encoder, device: torch.device) -> None:
        self.settings, self.device = settings, device
        self.transform = Transform(encoder.preprocessing)
        self.model = ImageModel(encoder).eval().to(device)

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        cells, mask, _ = self.model.encode(images.to(self.device))
        weight = mask.unsqueeze(-1).to(cells)
        return (cells * weight).sum(1) / weight.sum(1)

    @property
    def fingerprint(self) -> str:
        """Changes with the weights and with what images look like to them."""
        encoder = self.model.encoder
        return fingerprint(encoder.state_dict().items(), self.settings, encoder.preprocessing)

    def save(self, folder: Path) -> None:
        """Write a folder that `of_folder` reads, as if it were a checkpoint's encoder alone."""
        save_model(self.model, str(folder / MODEL))
        (folder / CONFIG).write_text(json.dumps({"encoder": to_plain(self.settings)}), encoding="utf-8")
        seen = self.model.encoder.preprocessing._asdict()
        (folder / PREPROCESSING).write_text(json.dumps(seen), encoding="utf-8")

    @classmethod
    def of_folder(cls, folder: Path, device: torch.device) -> FrozenEncoder:
        """Return the encoder of a checkpoint, a captioner's or a tag model's."""
        stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        settings = check_group("encoder", OmegaConf.create(stored)["encoder"])
        seen = read_preprocessing(folder)
        untrained = without_downloads({"encoder": settings, "decoder": {}}, seen and seen.size)
        encoder = build("encoder", untrained["encoder"])
        encoder.preprocessing = seen
        found = cls(settings, encoder, device)
        load_encoder(found.model, folder)
        return found

    @classmethod
    def of_draft(cls, draft: dict[str, Any], device: torch.device) -> FrozenEncoder:
        """Return the encoder that draft=retrieval names: a run's, or one of the options with its pretrained weights."""
        if draft["run"] is not None:
            return cls.of_folder(checkpoint_of(Path(draft["run"])), device)
        settings = option_from_text("encoder", draft["encoder"])
        try:
            return cls(settings, build("encoder", settings), device)
        except ValueError as error:
            raise ValueError(
                f"draft.encoder={draft['encoder']}: {error}; or take the encoder of a run of your own by draft.run=RUN"
            ) from None


def check_retrieval(draft: dict[str, Any]) -> None:
    """Raise `ValueError` if draft=retrieval names no run, or without one no encoder of images."""
    try:
        if draft["run"] is not None:
            checkpoint_of(Path(draft["run"]))
        else:
            Transform(preprocessing_of(option_from_text("encoder", draft["encoder"])))
    except ValueError as error:
        raise ValueError(f"draft.{'encoder' if draft['run'] is None else 'run'}: {error}") from None


def make_neighbours(encoder: FrozenEncoder, examples: Sequence[Example], *, workers: int) -> Path:
    """Return the folder in the cache with the features of training examples; they are encoded once."""
    texts = (f"{identity(e.image)}{e.id}\0{e.references[0]}" for e in examples)
    folder = paths.cache_dir() / "neighbours" / digest_of([encoder.fingerprint, *texts], code=_CODE)

    def make(new: Path) -> None:
        logger.info(
            "features of %s training images, to find neighbours by, go to %s", f"{len(examples):,}", folder
        )
        encoder.save(new)
        Neighbours.store(new, examples, encoder, encoder.transform, workers)

    return made_once(folder, make)


def copy_neighbours(neighbours: Path, folder: Path) -> None:
    """Copy what neighbours are found by into a folder that is there."""
    shutil.copytree(neighbours, folder, dirs_exist_ok=True)
