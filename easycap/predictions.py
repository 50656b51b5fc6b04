"""What a trained tag model says of images: of a data set's once, kept in the user's cache; of any other when asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from easycap import paths
from easycap.build import model_to_be_filled, precomputed_features
from easycap.config import check_stored
from easycap.data.features import FeatureCache, fingerprint
from easycap.data.transforms import Transform
from easycap.models.tag_model import TagModel
from easycap.runs import checkpoint_of
from easycap.training.checkpoint import (
    CONFIG,
    MODEL,
    PREPROCESSING,
    load_weights,
    read_preprocessing,
    task_of,
)
from easycap.types import Example, Features, Inputs
from easycap.vocab.tags import FILE, TagVocabulary

KEPT = "tagger"  # the folder in a run's where it keeps the tag model that it was trained with
_BATCH = 100


def tag_checkpoint(tags: dict[str, Any], run: Path | None) -> Path:
    """Return the checkpoint of the tag model that a checked group of tags names, the copy in the folder `run` if it is
    there.

    Raises `ValueError` if there is none or if it is a captioner's.
    """
    if run is not None and (run / KEPT / MODEL).is_file():
        return run / KEPT
    try:
        folder = checkpoint_of(Path(tags["run"]))
        task = task_of(folder)
    except (OSError, ValueError) as error:
        raise ValueError(f"tags.run={tags['run']}: {error}") from None
    if task != "tags":
        raise ValueError(f"tags.run={tags['run']} is no tag model: train one by task=tags tagger=cnn")
    return folder


def copy_tag_model(checkpoint: Path, folder: Path) -> None:
    """Copy what predictions need of a tag model's checkpoint into a folder that is there."""
    for name in (MODEL, CONFIG, PREPROCESSING, FILE):
        shutil.copyfile(checkpoint / name, folder / name)


class OwnTags:
    """The tags of images that are known already: a vocabulary, made or read when it is first asked for."""

    def __init__(self, make: Callable[[], TagVocabulary]) -> None:
        self._make = make

    @cached_property
    def vocabulary(self) -> TagVocabulary:
        return self._make()

    def __getstate__(self) -> dict[str, Any]:
        # Where processes that load are not forked they get the vocabulary, not the way to make it.
        return {"vocabulary": self.vocabulary}


class TagPredictions:
    """The probabilities of a tag model's checkpoint for images, computed on `device`."""

    def __init__(self, checkpoint: Path, *, device: torch.device, workers: int) -> None:
        self.checkpoint, self.device, self.workers = checkpoint, device, workers
        self.vocabulary = TagVocabulary.load(checkpoint)
        self._caches: list[FeatureCache] = []

    @cached_property
    def _config(self) -> dict[str, Any]:
        return check_stored(
            OmegaConf.create(json.loads((self.checkpoint / CONFIG).read_text(encoding="utf-8")))
        )

    @cached_property
    def _model(self) -> TagModel:
        if precomputed_features(self._config["encoder"]):
            raise ValueError(
                f"the tag model {self.checkpoint} reads features that were made elsewhere: train one that sees images"
            )
        model = model_to_be_filled(self._config, self.vocabulary, self.checkpoint)
        load_weights(model, self.checkpoint)
        return model.eval().requires_grad_(False).to(self.device)

    @cached_property
    def transform(self) -> Transform:
        return Transform(read_preprocessing(self.checkpoint))

    @torch.no_grad()
    def of_pixels(self, images: torch.Tensor) -> torch.Tensor:
        """images (N,3,S,S) uint8 -> (N, tags)."""
        # In full precision, so that the tags of an image do not depend on the machine.
        with torch.autocast(self.device.type, enabled=False):
            return self._model.probabilities(Inputs(images.to(self.device)))

    def prepare(self, examples: Sequence[Example]) -> None:
        """Predict for a data set's examples what is not in the cache; other images wait until they are asked for."""
        new = [
            e for e in examples if e.references and not any(e.image in cache.rows for cache in self._caches)
        ]
        if not new:
            return
        made_by = fingerprint(
            self._model.state_dict().items(), self._config["encoder"], read_preprocessing(self.checkpoint)
        )
        cache = FeatureCache(paths.cache_dir() / "predicted_tags", examples, made_by)
        cache.fill(
            self._as_features,
            self.transform,
            batch_size=_BATCH,
            workers=self.workers,
        )
        self._caches.append(cache)

    def _as_features(self, images: torch.Tensor) -> Features:
        found = self.of_pixels(images).unsqueeze(1)
        return Features(found, found.new_ones(found.shape[:2], dtype=torch.bool), None)

    def probabilities(self, example: Example) -> np.ndarray:
        """Return the probability of each tag (tags,)."""
        for cache in self._caches:
            if example.image in cache.rows:
                return cache(example.image)[0].float().numpy()
        # As coarse as what the cache gives: a photo has the same tags, whether it is of a data set or not.
        return self.of_pixels(self.transform(example.image).unsqueeze(0))[0].half().float().cpu().numpy()
