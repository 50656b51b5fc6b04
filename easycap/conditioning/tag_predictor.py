"""Probabilities of tags by a trained tag model: cached for the images of a data set, computed for any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from easycap.config.schema import check_stored
from easycap.data.array_cache import ArrayCache
from easycap.data.feature_files import precomputed_features
from easycap.data.features import fingerprint
from easycap.data.transforms import Transform
from easycap.errors import UserError
from easycap.models.build import build_tag_model, untrained_model
from easycap.models.checkpoint import PREPROCESSING, load_weights, read_preprocessing
from easycap.models.stored_weights import weight_files
from easycap.models.tag_model import TagModel
from easycap.runs.find import CONFIG, MODEL, checkpoint_of, task_of
from easycap.types import Example, Inputs
from easycap.utils import paths
from easycap.utils.cpu_threads import FastestThreads, restore_thread_count
from easycap.vocab.tags import FILE, TagVocabulary

_BATCH = 100


def tag_checkpoint(run: str, saved: Path | None) -> Path:
    """Return the checkpoint of the tag model of `run`, or the copy in the folder `saved` if it is there.

    Raises `UserError` if there is none or if it is a captioner's.
    """
    if saved is not None and (saved / MODEL).is_file():
        return saved
    try:
        folder = checkpoint_of(Path(run))
        task = task_of(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"tags.run={run}: {error}") from None
    if task != "tags":
        raise UserError(f"tags.run={run} is not a tag model; train one with task=tags tagger=cnn")
    return folder


def copy_tag_model(checkpoint: Path, folder: Path) -> None:
    """Copy what predictions need of a tag model's checkpoint into an existing folder."""
    for old in weight_files(folder)[1:]:
        old.unlink()
    for file in (*weight_files(checkpoint), *(checkpoint / name for name in (CONFIG, PREPROCESSING, FILE))):
        shutil.copyfile(file, folder / file.name)


class TagPredictions:
    """The probabilities of a tag model's checkpoint for images, computed on `device`."""

    def __init__(self, checkpoint: Path, *, device: torch.device, workers: int | str) -> None:
        self.checkpoint, self.device, self.workers = checkpoint, device, workers
        self.vocabulary = TagVocabulary.load(checkpoint)
        self._caches: list[ArrayCache] = []

    @cached_property
    def _config(self) -> dict[str, Any]:
        return check_stored(
            OmegaConf.create(json.loads((self.checkpoint / CONFIG).read_text(encoding="utf-8")))
        )

    @cached_property
    def _model(self) -> TagModel:
        if precomputed_features(self._config["encoder"]):
            raise UserError(
                f"the tag model {self.checkpoint} reads precomputed features: train one on images"
            )
        model = untrained_model(build_tag_model, self._config, self.vocabulary, self.checkpoint)
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
        """Predict what is not in the cache for examples of a data set; others are predicted when asked for."""
        new = [
            e for e in examples if e.references and not any(e.image in cache.rows for cache in self._caches)
        ]
        if not new:
            return
        made_by = fingerprint(
            self._model.state_dict().items(), self._config["encoder"], read_preprocessing(self.checkpoint)
        )
        cache = ArrayCache(paths.cache_dir() / "tag_probabilities", examples, made_by, what="probabilities")
        self._model.fold_encoder(len(new))
        predict = FastestThreads(self._predict, ahead=len(new), device=self.device, what="predicting tags")
        with restore_thread_count():
            cache.fill(
                predict, self.transform, batch_size=_BATCH, workers=self.workers, progress="predicting tags"
            )
        self._caches.append(cache)

    def _predict(self, images: torch.Tensor) -> torch.Tensor:
        found = self.of_pixels(images)
        if not found.isfinite().all():
            raise UserError(f"the tag model {self.checkpoint} predicts NaN: train another one")
        return found

    def __getstate__(self) -> dict[str, Any]:
        # Data loader processes need what was predicted, not the model.
        return {"vocabulary": self.vocabulary, "_caches": self._caches}

    def probabilities(self, example: Example) -> np.ndarray:
        """Return the probability of each tag (tags,)."""
        for cache in self._caches:
            if example.image in cache.rows:
                return cache(example.image).float().numpy()
        # Rounded as in the cache: a photo has the same tags, whether it is of a data set or not.
        return self.of_pixels(self.transform(example.image).unsqueeze(0))[0].half().float().cpu().numpy()
