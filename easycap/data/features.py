"""A frozen encoder runs once per image: its features on disk, shared by epochs, runs and the runs of a sweep."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch

from easycap.data.array_cache import ArrayCache, CannotCache
from easycap.data.transforms import Transform, is_flipped
from easycap.types import Example, Features, ImageInput
from easycap.utils.cache import digest_of

_LIBRARIES = ("timm", "torch", "torchvision", "pillow", "simplejpeg")  # encoders, and what reads images


def fingerprint(state: Iterable[tuple[str, torch.Tensor]], *settings: object) -> str:
    """Return 16 hex digits of weights, name by name and byte by byte, of the libraries that make features of them, and
    of what else features depend on.
    """
    digest = hashlib.blake2b(digest_size=8)
    digest.update(repr([version(name) for name in _LIBRARIES]).encode())
    for name, tensor in state:
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    digest.update(repr(settings).encode())
    return digest.hexdigest()


def made_by(encoder: Any, settings: Mapping[str, Any], precision: str, *others: str) -> str:
    """Return 16 hex digits of an encoder of the checked group `settings` that computes in a precision, e.g. fp32."""
    own = {k: v for k, v in settings.items() if k not in ("pretrained", "weights")}
    code = digest_of([], code=Path(inspect.getfile(type(encoder))).parent)
    return fingerprint(encoder.state_dict().items(), own, encoder.preprocessing, precision, code, *others)


class FeatureCache(ArrayCache):
    """Features of images in half precision: image -> tensor (R,C) float16; masked patches are NaN, as in batches."""

    remedy = ", or trainer.cache_features=false"

    def __init__(self, root: Path, examples: Sequence[Example], fingerprint: str) -> None:
        super().__init__(root, examples, fingerprint, what="features")

    def encode(
        self,
        encoder: Callable[[torch.Tensor], Features],
        transform: ImageInput,
        *,
        batch_size: int,
        workers: int | str,
        progress: str = "caching features",
    ) -> None:
        """Encode what is not there yet with `encoder`: images (N,3,S,S) uint8 -> Features, of one R; see `fill`.

        Raises `CannotCache` also for features beyond half precision.
        """
        self.fill(
            lambda images: _half_with_nan(encoder(images)),
            transform,
            batch_size=batch_size,
            workers=workers,
            progress=progress,
        )


def _half_with_nan(features: Features) -> torch.Tensor:
    """Features -> (N,R,C) float16 on the CPU, NaN in masked patches; raises `CannotCache` for other infinite values."""
    half, mask = features.patches.to(torch.float16).cpu(), features.mask.cpu()
    if not torch.isfinite(half[mask]).all():
        raise CannotCache(
            "the encoder's features are too large for half precision: set trainer.cache_features=false"
        )
    half[~mask] = float("nan")
    return half


class AugmentedFeatures(Protocol):
    """Cached features of augmented training images."""

    def begin_epoch(self, epoch: int) -> None:
        """Called before an epoch (from 0) is loaded."""

    def cache_of(self, example: Example) -> FeatureCache | None:
        """Return the cache of what is seen of an example in this epoch, None for the whole image."""

    def of(self, example: Example) -> torch.Tensor:
        """Return the pixels (3,S,S) that are seen of an example in this epoch."""


class MirroredFeatures:
    """Features of mirrored training images: a seed draws in each epoch which are seen so, as `Augmentation` does."""

    def __init__(self, cache: FeatureCache, transform: Transform, *, seed: int) -> None:
        self.cache, self.transform, self.seed, self.epoch = cache, transform, seed, 0

    def begin_epoch(self, epoch: int) -> None:
        """Called before an epoch (from 0) is loaded."""
        self.epoch = epoch

    def cache_of(self, example: Example) -> FeatureCache | None:
        """Return the cache if this image is mirrored in this epoch."""
        flipped = example.image in self.cache.rows and is_flipped(example, self.seed, self.epoch)
        return self.cache if flipped else None

    def of(self, example: Example) -> torch.Tensor:
        """Return the pixels (3,S,S), mirrored in some epochs."""
        pixels = self.transform.of(example)
        return pixels if self.cache_of(example) is None else pixels.flip(2)


class CachedFeatures:
    """What a model receives of an image: cached features until the epoch `live_from` (None: for ever), then its pixels.

    Training sees what `augmented` draws, if that is given; validation uses `WholeImages`.
    """

    def __init__(
        self,
        caches: Sequence[FeatureCache],
        transform: Transform,
        *,
        live_from: int | None,
        augmented: AugmentedFeatures | None = None,
    ) -> None:
        self.caches, self.transform, self.live_from = caches, transform, live_from
        self.augmented, self.live = augmented, False

    def begin_epoch(self, epoch: int) -> None:
        """Called before an epoch (from 0) is loaded; processes that load are forked after it."""
        self.live = self.live_from is not None and epoch >= self.live_from
        if self.augmented is not None:
            self.augmented.begin_epoch(epoch)

    def of(self, example: Example) -> torch.Tensor:
        """Return what the model gets of the features (R,C) float16 of an example, or of its pixels (3,S,S)."""
        if self.augmented is None:
            return self.of_whole(example)
        if self.live:
            return self.augmented.of(example)
        cache = self.augmented.cache_of(example)
        return self.of_whole(example) if cache is None else self.transform.of_features(cache(example.image))

    def of_whole(self, example: Example) -> torch.Tensor:
        """Return the same of an image that is not augmented."""
        if not self.live:
            for cache in self.caches:
                if example.image in cache.rows:
                    return self.transform.of_features(cache(example.image))
        return self.transform.of(example)


class WholeImages:
    """`CachedFeatures` without augmentation, in the epoch that training is in."""

    def __init__(self, features: CachedFeatures) -> None:
        self.features = features

    def begin_epoch(self, epoch: int) -> None:
        """Training begins it."""

    def of(self, example: Example) -> torch.Tensor:
        """Return what `CachedFeatures.of_whole` does."""
        return self.features.of_whole(example)
