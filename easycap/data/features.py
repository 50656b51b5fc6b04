"""A frozen encoder runs once per image: its features on disk, shared by epochs, runs and the runs of a sweep."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from easycap.data.array_cache import ArrayCache, CannotCache
from easycap.data.transforms import Transform, is_flipped
from easycap.types import Example, Features, ImageInput

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
    ) -> None:
        """Encode what is not there yet with `encoder`: images (N,3,S,S) uint8 -> Features, of one R; see `fill`.

        Raises `CannotCache` also for features beyond half precision.
        """
        self.fill(
            lambda images: _half_with_nan(encoder(images)),
            transform,
            batch_size=batch_size,
            workers=workers,
            progress="caching features",
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


class CachedFeatures:
    """What a model receives of an image: cached features until the epoch `live_from` (None: for ever), then its pixels.

    With `mirrored`, features of mirrored training images, a seed draws in each epoch which images are seen so, as
    `Augmentation` does.
    """

    def __init__(
        self,
        caches: Sequence[FeatureCache],
        transform: Transform,
        *,
        live_from: int | None,
        mirrored: FeatureCache | None = None,
        seed: int = 0,
    ) -> None:
        self.caches, self.transform, self.live_from = caches, transform, live_from
        self.mirrored, self.seed, self.epoch, self.live = mirrored, seed, 0, False

    def begin_epoch(self, epoch: int) -> None:
        """Called before an epoch (from 0) is loaded; processes that load are forked after it."""
        self.epoch = epoch
        self.live = self.live_from is not None and epoch >= self.live_from

    def of(self, example: Example) -> torch.Tensor:
        """Return what the model gets of the features (R,C) float16 of an example, or of its pixels (3,S,S)."""
        mirrored = self._flipped(example)
        if not self.live:
            for cache in self.caches if mirrored is None else [mirrored]:
                if example.image in cache.rows:
                    return self.transform.of_features(cache(example.image))
        pixels = self.transform.of(example)
        return pixels if mirrored is None else pixels.flip(2)

    def _flipped(self, example: Example) -> FeatureCache | None:
        """The cache of mirrored images, if this one is mirrored in this epoch."""
        if self.mirrored is None or example.image not in self.mirrored.rows:
            return None
        return self.mirrored if is_flipped(example, self.seed, self.epoch) else None
