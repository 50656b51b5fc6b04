"""The frozen encoder that drafts are retrieved with, and the folder with its features of the training images."""

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
from easycap.conditioning.neighbours import Neighbours
from easycap.config.instantiate import build
from easycap.config.schema import check_stored_group, option_from_text, to_plain
from easycap.data.array_cache import CannotCache
from easycap.data.features import FeatureCache, fingerprint, made_by
from easycap.data.transforms import Transform
from easycap.errors import UserError
from easycap.models.build import preprocessing_of, without_downloads
from easycap.models.checkpoint import PREPROCESSING, load_encoder, read_preprocessing
from easycap.models.image_model import ImageModel
from easycap.runs.find import CONFIG, MODEL, checkpoint_of
from easycap.types import Encoder, Example
from easycap.utils import paths
from easycap.utils.cache import cached_dir, digest_of
from easycap.utils.cpu_threads import FastestThreads, restore_thread_count

logger = logging.getLogger(__name__)

_CODE = Path(easycap.data.__file__).parent  # it makes the pixels that are encoded


class FrozenEncoder:
    """A frozen encoder, of the checked group `settings`: images (N,3,S,S) uint8 -> the mean of their features (N,C).

    Raises `UserError` for an encoder that reads precomputed features.
    """

    def __init__(self, settings: dict[str, Any], encoder: Encoder, device: torch.device) -> None:
        self.settings, self.device = settings, device
        self.transform = Transform(encoder.preprocessing)
        self.model = ImageModel(encoder).eval().to(device)
        self.model.freeze_encoder(True)

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        patches, mask, _ = self.model.encode(images.to(self.device))
        weight = mask.unsqueeze(-1).to(patches)
        return (patches * weight).sum(1) / weight.sum(1)

    def cached(self, examples: Sequence[Example]) -> torch.Tensor | None:
        """Return the features (N,C) of N examples if this encoder's are cached, in full precision, for training."""
        maker = made_by(self.model.encoder, self.settings, "fp32", *self.transform.identity())
        cache = FeatureCache(paths.cache_dir() / "features", examples, maker)
        try:
            if not cache.folder.is_dir() or cache.left():
                return None
        except CannotCache:  # training says so
            return None
        logger.info("using cached features of %s images from %s", f"{len(examples):,}", cache.folder)
        return torch.stack([cache(example.image).float().nanmean(0) for example in examples])

    @property
    def fingerprint(self) -> str:
        """Changes with the weights and the preprocessing."""
        state = self.model.get_submodule("encoder").state_dict()
        return fingerprint(state.items(), self.settings, self.model.encoder.preprocessing)

    def save(self, folder: Path) -> None:
        """Write a folder that `of_folder` reads: a checkpoint of the encoder alone."""
        save_model(self.model, str(folder / MODEL))
        (folder / CONFIG).write_text(json.dumps({"encoder": to_plain(self.settings)}), encoding="utf-8")
        preprocessing = self.model.encoder.preprocessing
        assert preprocessing is not None  # else there were no `transform`
        (folder / PREPROCESSING).write_text(json.dumps(preprocessing._asdict()), encoding="utf-8")

    @classmethod
    def of_folder(cls, folder: Path, device: torch.device) -> FrozenEncoder:
        """Return the encoder of a checkpoint, a captioner's or a tag model's."""
        stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        settings = check_stored_group("encoder", OmegaConf.create(stored)["encoder"])
        seen = read_preprocessing(folder)
        untrained = without_downloads({"encoder": settings, "decoder": {}}, seen and seen.size)
        encoder = build("encoder", untrained["encoder"])
        encoder.preprocessing = seen
        found = cls(settings, encoder, device)
        load_encoder(found.model, folder)
        return found


def encoder_of(run: str | None, encoder: str, device: torch.device) -> FrozenEncoder:
    """Return the encoder of a run, or without one the `encoder` OPTION,KEY=VALUE,... with its pretrained weights."""
    if run is not None:
        return FrozenEncoder.of_folder(checkpoint_of(Path(run)), device)
    settings = option_from_text("encoder", encoder)
    try:
        return FrozenEncoder(settings, build("encoder", settings), device)
    except ValueError as error:
        raise UserError(
            f"draft.encoder={encoder}: {error}; or use the encoder of one of your runs: draft.run=RUN"
        ) from None


def check_encoder(run: str | None, encoder: str) -> None:
    """Raise `UserError` if there is no such run, or without one no such encoder of images; see `encoder_of`."""
    try:
        if run is not None:
            checkpoint_of(Path(run))
        else:
            Transform(preprocessing_of(option_from_text("encoder", encoder)))
    except ValueError as error:
        raise UserError(f"draft.{'encoder' if run is None else 'run'}: {error}") from None


def make_neighbours(encoder: FrozenEncoder, examples: Sequence[Example], *, workers: int | str) -> Path:
    """Return the folder in the cache with the features of training examples; they are encoded once."""
    texts = (f"{e.image.identity()}{e.id}\0{e.references[0]}" for e in examples)
    folder = paths.cache_dir() / "neighbours" / digest_of([encoder.fingerprint, *texts], code=_CODE)

    def make(new: Path) -> None:
        logger.info(
            "caching features of %s training images in %s, to retrieve drafts", f"{len(examples):,}", folder
        )
        encoder.save(new)
        encoder.model.fold_encoder(len(examples))
        encode = FastestThreads(encoder, ahead=len(examples), device=encoder.device, what="caching features")
        with restore_thread_count():
            Neighbours.store(new, examples, encode, encoder.transform, workers, encoder.cached)

    return cached_dir(folder, make)


def open_neighbours(folder: Path, device: torch.device, workers: int | str, *, count: int) -> Neighbours:
    """Return the neighbours in a folder that `make_neighbours` made, with the encoder that is saved there."""
    encoder = FrozenEncoder.of_folder(folder, device)
    fold = encoder.model.fold_encoder
    return Neighbours(
        folder, encoder, encoder.transform, workers, count=count, cached=encoder.cached, fold=fold
    )


def copy_neighbours(neighbours: Path, folder: Path) -> None:
    """Copy a folder that `make_neighbours` made into an existing folder."""
    shutil.copytree(neighbours, folder, dirs_exist_ok=True)
