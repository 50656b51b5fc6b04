"""Captions of the training images that are most similar to an image."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
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


class Neighbours:
    """The first caption of the training image whose features have the largest cosine with an image's.

    `encode` maps images (N,3,S,S) uint8 to features (N,C). `folder` has those of the training images, normalised and in
    half precision, with their ids and captions. Raises `UserError` if it is damaged.
    """

    def __init__(
        self,
        folder: Path,
        encode: Callable[[torch.Tensor], torch.Tensor],
        transform: Transform,
        workers: int | str,
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
        self.encode, self.transform, self.workers = encode, transform, workers

    @staticmethod
    def store(
        folder: Path,
        examples: Sequence[Example],
        encode: Callable[[torch.Tensor], torch.Tensor],
        transform: Transform,
        workers: int | str,
    ) -> None:
        """Write the `folder` for training examples."""
        features = torch.cat(list(_features(examples, encode, transform, workers)))
        np.save(folder / _FEATURES, features.half().numpy())
        stored = {"ids": [e.id for e in examples], "captions": [e.references[0] for e in examples]}
        (folder / _CAPTIONS).write_text(json.dumps(stored), encoding="utf-8")

    def __call__(self, examples: Sequence[Example]) -> list[str]:
        """Return a caption for each example.

        Never that of the training image with its id, nor of one with cosine 0.9999 or more: the same picture, a copy
        of it or one saved again. Raises `UserError` if there is no other.
        """
        found: list[str] = []
        for features in _features(examples, self.encode, self.transform, self.workers):
            similarity = features @ self.features.T
            similarity[similarity >= _SAME] = -torch.inf
            for row, example in zip(similarity, examples[len(found) :], strict=False):
                if example.id in self.rows:
                    row[self.rows[example.id]] = -torch.inf
                if not row.isfinite().any():
                    raise UserError(
                        f"draft=retrieval: its encoder distinguishes no training image from {example.id}: "
                        "train with another draft.encoder or draft.run; for a photo, a draft can also be given"
                    )
            found += [self.captions[row] for row in similarity.argmax(1).tolist()]
        return found


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
        yield torch.nn.functional.normalize(encode(batch).float().cpu(), dim=1)
