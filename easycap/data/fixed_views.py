"""A few fixed views of each training image, so that features of random crops can be cached."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence

import torch

from easycap.data.features import FeatureCache
from easycap.data.transforms import Augmentation, Mirrored, Transform, may_flip
from easycap.types import Example, ImageInput

_SEED = -1  # of the crops: not the run's, so that runs share them
WHOLE, MIRRORED, FIRST_CROP = range(3)  # numbers of views


class FixedCrop:
    """Random crop `number` of each image, with `flip` mirrored or not: a function of image id and number alone."""

    def __init__(self, transform: Transform, *, crop: float, flip: bool, number: int) -> None:
        self.number = number
        self._augmentation = Augmentation(transform, crop=crop, flip=flip, seed=_SEED)
        self._augmentation.begin_epoch(number)

    def begin_epoch(self, epoch: int) -> None:
        """The same in every epoch."""

    def of(self, example: Example) -> torch.Tensor:
        """Return the crop (3,S,S), uint8."""
        return self._augmentation.of(example)


class FixedViews:
    """What training sees of an image: itself, with `flip` its mirror image, or one of its `count` random crops.

    A seed orders an image's views anew each time all have been seen, so that none comes more often than another. From
    the epoch `live_from` on (None: never) there is a new crop in every epoch, as `Augmentation` draws it.
    """

    def __init__(
        self, transform: Transform, *, crop: float, count: int, flip: bool, seed: int, live_from: int | None
    ) -> None:
        self.crops = [FixedCrop(transform, crop=crop, flip=flip, number=number) for number in range(count)]
        self.views: list[ImageInput] = [transform, Mirrored(transform), *self.crops]
        self.crop, self.flip, self.seed, self.live_from, self.epoch = crop, flip, seed, live_from, 0
        self._new_crops = Augmentation(transform, crop=crop, flip=flip, seed=seed)

    def begin_epoch(self, epoch: int) -> None:
        """Called before an epoch (from 0) is loaded; processes that load are forked after it."""
        self.epoch = epoch
        self._new_crops.begin_epoch(epoch)

    def folders(self, examples: Sequence[Example]) -> list[str]:
        """Return a folder's name for each crop: other ids, or other captions with left or right, make other crops."""
        digest = hashlib.blake2b(repr(_SEED).encode(), digest_size=8)
        for example in examples:
            flipped = self.flip and may_flip(example)
            digest.update(f"{example.id}\0{flipped}\n".encode("utf-8", "surrogateescape"))
        settings = f"{self.crop:g}{'-flip' if self.flip else ''}"
        return [f"{settings}-{crop.number}-{digest.hexdigest()}" for crop in self.crops]

    def drawn(self, example: Example) -> int:
        """Return the number of the view that an image is seen as in this epoch."""
        views = [WHOLE, *range(FIRST_CROP, len(self.views))]
        if self.flip and may_flip(example):
            views.append(MIRRORED)
        turn, place = divmod(self.epoch, len(views))
        random.Random(f"fixed views/{self.seed}/{turn}/{example.id}").shuffle(views)
        return views[place]

    def of(self, example: Example) -> torch.Tensor:
        """Return what a model gets of an example (3,S,S) in this epoch."""
        if self.live_from is not None and self.epoch >= self.live_from:
            return self._new_crops.of(example)
        return self.views[self.drawn(example)].of(example)


class CachedViews:
    """`FixedViews` with the caches of those views that are not the whole image."""

    def __init__(self, views: FixedViews, caches: Mapping[int, FeatureCache]) -> None:
        self.views, self.caches = views, caches

    def begin_epoch(self, epoch: int) -> None:
        """Called before an epoch (from 0) is loaded."""
        self.views.begin_epoch(epoch)

    def cache_of(self, example: Example) -> FeatureCache | None:
        """Return the cache of what is seen of an example in this epoch, None for the whole image."""
        return self.caches.get(self.views.drawn(example))

    def of(self, example: Example) -> torch.Tensor:
        """Return the pixels (3,S,S) that are seen of an example in this epoch."""
        return self.views.of(example)
