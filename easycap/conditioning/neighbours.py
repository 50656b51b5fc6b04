"""Captions of the training images that are most similar to an image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from easycap.data.loader import image_batches
from easycap.data.transforms import Transform
from easycap.errors import UserError
from easycap.types import Example
from easycap.utils.progress_bar import tracked

_FEATURES, _CAPTIONS = "features.npy", "captions.json"
_BATCH = 64
_SAME = 0.9999  # from this cosine on two images are the same picture, in other files or in half precision


def _no_cache(examples: Sequence[Example]) -> None:
    """No features of any examples are known."""


def _no_folding(num_images: int) -> None:
    """Nothing can be folded."""


class Neighbours:
    """The first captions of the `count` training images whose features have the largest cosines with an image's.

    `encode` maps images (N,3,S,S) uint8 to features (N,C). `folder` has those of the training images, normalised and in
    half precision, with their ids and captions. `cached` has features (N,C) of N examples where they are on the disk.
    `fold` is called with the number of images to come.
    Raises `UserError` if the folder is damaged.
    """

    def __init__(
        self,
        folder: Path,
        encode: Callable[[torch.Tensor], torch.Tensor],
        transform: Transform,
        workers: int | str,
        *,
        count: int,
        cached: Callable[[Sequence[Example]], torch.Tensor | None] = _no_cache,
        fold: Callable[[int], None] = _no_folding,
    ) -> None:
        try:
            stored_features = torch.from_numpy(np.load(folder / _FEATURES)).float()
            stored = json.loads((folder / _CAPTIONS).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} with the training images' features is damaged: {error}") from None
        # Rounded to half precision they are a ten-thousandth too long or too short, as much as `_SAME` tells apart.
        self.features = torch.nn.functional.normalize(stored_features, dim=1)
        self.captions = stored["captions"]
        self.rows = {image_id: row for row, image_id in enumerate(stored["ids"])}
        self.images = stored.get("images", [])  # not in folders of earlier versions
        self.encode, self.transform, self.workers = encode, transform, workers
        self.count, self.cached, self.fold = count, cached, fold

    @staticmethod
    def store(
        folder: Path,
        examples: Sequence[Example],
        encode: Callable[[torch.Tensor], torch.Tensor],
        transform: Transform,
        workers: int | str,
        cached: Callable[[Sequence[Example]], torch.Tensor | None] = _no_cache,
    ) -> None:
        """Write the `folder` for training examples."""
        found = cached(examples)
        batches = _features(examples, encode, transform, workers) if found is None else [_normalized(found)]
        np.save(folder / _FEATURES, torch.cat(list(batches)).half().numpy())
        stored = {
            "ids": [e.id for e in examples],
            "captions": [e.references[0] for e in examples],
            "images": [_image_digest(e) for e in examples],
        }
        (folder / _CAPTIONS).write_text(json.dumps(stored), encoding="utf-8")

    def __call__(self, examples: Sequence[Example]) -> list[list[str]]:
        """Return `count` captions for each example, that of the nearest image first.

        Never that of the training image with its id, nor of one with cosine 0.9999 or more: the same picture, a copy
        of it or one saved again. Raises `UserError` if there are too few others.
        """
        found: list[list[str]] = []
        for features in self._features_of(examples):
            similarity = features @ self.features.T
            similarity[similarity >= _SAME] = -torch.inf
            for row, example in zip(similarity, examples[len(found) :], strict=False):
                if example.id in self.rows:
                    row[self.rows[example.id]] = -torch.inf
                self._check(int(row.isfinite().sum()), example)
            nearest = similarity.topk(self.count, dim=1).indices.tolist()
            found += [[self.captions[row] for row in rows] for rows in nearest]
        return found

    def _check(self, others: int, example: Example) -> None:
        if not others:
            raise UserError(
                f"draft=retrieval: its encoder distinguishes no training image from {example.id}: "
                "train with another draft.encoder or draft.run; for a photo, a draft can also be given"
            )
        if others < self.count:
            raise UserError(
                f"draft.count={self.count} takes the captions of so many training images, and only {others} differ "
                f"from {example.id}: set draft.count={others} or less"
            )

    def _features_of(self, examples: Sequence[Example]) -> Iterable[torch.Tensor]:
        """The normalised features (N,C) of examples, batch by batch: stored, cached, or computed now."""
        rows = [self._row_of(example) for example in examples]
        known = [row for row in rows if row is not None]
        if len(known) == len(rows):
            return self.features[known].split(_BATCH)
        cached = self.cached(examples)
        if cached is not None:
            return _normalized(cached).split(_BATCH)
        self.fold(len(examples))
        return _features(examples, self.encode, self.transform, self.workers)

    def _row_of(self, example: Example) -> int | None:
        """The row of an example that is one of the training images, not only by its id."""
        row = self.rows.get(example.id)
        if row is None or not self.images or self.images[row] != _image_digest(example):
            return None
        return row


def _image_digest(example: Example) -> str:
    """Hex digits that change with an image's content or file; they may be shared, as they do not show its path."""
    return hashlib.blake2b(example.image.identity().encode(), digest_size=8).hexdigest()


def _normalized(features: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(features.float().cpu(), dim=1)


@torch.inference_mode()
def _features(
    examples: Sequence[Example],
    encode: Callable[[torch.Tensor], torch.Tensor],
    transform: Transform,
    workers: int | str,
):
    """Yield normalised features (N,C), batch by batch; raises `UserError` naming an image that cannot be read."""
    batches = image_batches(examples, transform, batch_size=_BATCH, workers=workers)
    for batch in tracked(batches, "encoding images to find neighbours", len(examples), size=len):
        yield _normalized(encode(batch))
