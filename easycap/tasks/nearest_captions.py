"""The captions of the training images that look most like an image to a captioner's own encoder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import easycap.data
from easycap.data.loader import collate
from easycap.evaluation.ensemble_pipeline import EnsemblePipeline
from easycap.evaluation.pipeline import Pipeline
from easycap.tasks.datasets import document_frequencies, read_data
from easycap.tasks.feature_caching import feature_cache
from easycap.types import Dataset, Example, Features, Inputs
from easycap.utils import paths
from easycap.utils.cache import cached_dir, digest_of
from easycap.utils.cpu_threads import FastestThreads, restore_thread_count
from easycap.utils.progress_bar import tracked

logger = logging.getLogger(__name__)

_CODE = Path(easycap.data.__file__).parent  # it makes the pixels that are encoded
_BATCH = 16
_SAME = 0.9999  # from this cosine on two images are the same picture, in other files or in half precision


class _Index:
    """The mean features (S,C) of the training images, and how similar other images' are to them."""

    def __init__(self, means: torch.Tensor) -> None:
        self.means, self.center = means, means.mean(0)
        self._of_training: dict[int | None, torch.Tensor] = {}

    def similarity(self, features: torch.Tensor, whiten: int | None) -> torch.Tensor:
        """features (N,C) -> cosines (N,S), of the whole features or of `whiten` principal components."""
        if whiten not in self._of_training:
            self._of_training[whiten] = self._directions(self.means, whiten)
        return self._directions(features, whiten) @ self._of_training[whiten].T

    def _directions(self, features: torch.Tensor, whiten: int | None) -> torch.Tensor:
        centered = features - self.center
        return _normalized(centered if whiten is None else centered @ self._components[:, :whiten])

    @cached_property
    def _components(self) -> torch.Tensor:
        """Principal directions, the largest variance first, each divided by its standard deviation: (C,K)."""
        centered = (self.means - self.center).double()
        variances, directions = torch.linalg.eigh(centered.T @ centered / len(centered))
        most = max(1, len(centered) // 4)  # of few images, further directions are noise
        kept = slice(-most, None)
        return (directions[:, kept] / variances[kept].clamp_min(1e-5 * variances[-1]).sqrt()).flip(1).float()


class NearestCaptions:
    """features of N images -> for each the references of the `count` nearest training images, one list, each
    reference with the cosine of its image.

    Near is the cosine of the mean features less their mean over the training images or, with `whiten`, of their so many
    first principal components, each divided by its standard deviation over the training images (Jégou and Chum 2012):
    at most as many as a quarter of these images. The same picture is never among them. The features of the training
    images are those that training cached, else they are computed once and cached. Of an ensemble the first member's
    encoder decides. `data` that has not been read is read when it is needed.
    """

    def __init__(self, config: dict[str, Any], data: Dataset, pipeline: Pipeline) -> None:
        self.config, self.data = config, data
        self.pipeline = pipeline.members[0] if isinstance(pipeline, EnsemblePipeline) else pipeline

    def __call__(
        self, features: Features | Sequence[Features], count: int, whiten: int | None = None
    ) -> list[list[tuple[str, float]]]:
        """Return captions and cosines for each of the N images; `features` are an ensemble's list or a captioner's."""
        first = features if isinstance(features, Features) else features[0]
        index, found = self._index, _means(first).float().cpu()
        similarity = index.similarity(found, whiten)
        similarity[index.similarity(found, None) >= _SAME] = -torch.inf
        cosines, nearest = similarity.topk(min(count, len(self._examples)), dim=1)
        return [
            [
                (text, cosine)
                for row, cosine in zip(*of, strict=True)
                for text in self._examples[row].references
            ]
            for of in zip(nearest.tolist(), cosines.tolist(), strict=True)
        ]

    @cached_property
    def _examples(self) -> Sequence[Example]:
        splits: Mapping[str, Sequence[Example]] = self.data.splits
        return (splits or read_data(self.config, with_tags=False, stored=True).splits)["train"]

    @cached_property
    def _index(self) -> _Index:
        encoder, precision = self.pipeline.model.encoder, self.pipeline.precision
        if any(weight.requires_grad for weight in encoder.parameters()):
            # In training these differ at every validation, so they are not kept.
            found = torch.cat(list(self._computed_means()))
        else:
            cache = feature_cache(self._examples, encoder, self.config, precision)
            means = cached_dir(
                paths.cache_dir() / "mean_features" / digest_of([str(cache.folder)], code=_CODE),
                lambda new: np.save(new / "means.npy", torch.cat(list(self._training_means(cache))).numpy()),
            )
            found = torch.from_numpy(np.load(means / "means.npy"))
        return _Index(found)

    def _training_means(self, cache: Any) -> Iterator[torch.Tensor]:
        """Yield the mean features (N,C) of the training images, batch by batch."""
        if not cache.left():
            logger.info("using cached features of %s training images", f"{len(self._examples):,}")
            for example in self._examples:
                yield cache(example.image).float().nanmean(0, keepdim=True)
            return
        self.pipeline.model.fold_encoder(len(self._examples))
        yield from self._computed_means()

    def _computed_means(self) -> Iterator[torch.Tensor]:
        """Yield the mean features (N,C) of the training images, computed now, batch by batch."""
        images, what = len(self._examples), "encoding training images to find similar ones"
        encode = FastestThreads(self._means_of_pixels, ahead=images, device=self.pipeline.device, what=what)
        batches = (self._examples[i : i + _BATCH] for i in range(0, images, _BATCH))
        with restore_thread_count():
            for batch in tracked(batches, what, images, size=len):
                yield encode(collate([self.pipeline.view.of(example) for example in batch]))

    @torch.inference_mode()
    def _means_of_pixels(self, images: torch.Tensor) -> torch.Tensor:
        with self.pipeline.autocast():
            features = self.pipeline.model.features_of(Inputs(images, {}).to(self.pipeline.device))
        return _means(features).float().cpu()


def supplied_to_decoding(config: dict[str, Any], data: Dataset, pipeline: Pipeline) -> dict[str, Any]:
    """Return what a decoding method may ask for: the vocabulary, and what is known of the training images."""
    return {
        "vocabulary": pipeline.vocabulary,
        "document_frequencies": partial(document_frequencies, config, data, eos=False),
        "nearest_captions": NearestCaptions(config, data, pipeline),
    }


def _means(features: Features) -> torch.Tensor:
    """The mean (N,C) over the patches that are not masked."""
    weight = features.mask.unsqueeze(-1).to(features.patches)
    return (features.patches * weight).sum(1) / weight.sum(1)


def _normalized(features: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(features, dim=1)
