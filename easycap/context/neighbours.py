"""Training images that look most like an image, and their captions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from easycap.data.images import BadImage
from easycap.data.loader import ImageDataset, bad_image_ends
from easycap.data.transforms import Transform
from easycap.types import Example

_FEATURES, _CAPTIONS = "features.npy", "captions.json"
_BATCH = 64
_SAME = 0.9999  # the least cosine of one image with itself in another file or in half precision


class Neighbours:
    """The first caption of the training image whose features have the largest cosine with an image's.

    `encode` turns images (N,3,S,S) uint8 into features (N,C); `folder` holds those of the training images, of length 1
    in half precision, with their ids and captions. Raises `ValueError` if it does not.
    """

    def __init__(
        self, folder: Path, encode: Callable[[torch.Tensor], torch.Tensor], transform: Transform, workers: int
    ) -> None:
        try:
            stored_features = torch.from_numpy(np.load(folder / _FEATURES)).float()
            stored = json.loads((folder / _CAPTIONS).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} with the training images' features is damaged: {error}") from None
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
        workers: int,
    ) -> None:
        """Write what a `folder` of training examples holds."""
        features = torch.cat(list(_features(examples, encode, transform, workers)))
        np.save(folder / _FEATURES, features.half().numpy())
        stored = {"ids": [e.id for e in examples], "captions": [e.references[0] for e in examples]}
        (folder / _CAPTIONS).write_text(json.dumps(stored), encoding="utf-8")

    def __call__(self, examples: Sequence[Example]) -> list[str]:
        """Return a caption for each example, never that of a training image of its own id or of the same picture: of
        cosine 0.9999 or more, as its own file, a copy or one saved anew. `ValueError` if there is no other."""
        found: list[str] = []
        for features in _features(examples, self.encode, self.transform, self.workers):
            likeness = features @ self.features.T
            likeness[likeness >= _SAME] = -torch.inf
            for row, example in zip(likeness, examples[len(found) :], strict=False):
                if example.id in self.rows:
                    row[self.rows[example.id]] = -torch.inf
                if not row.isfinite().any():
                    raise ValueError(
                        f"draft=retrieval finds no training image that its encoder can tell from {example.id}: take "
                        "another encoder or run for draft, or give a draft by --draft"
                    )
            found += [self.captions[row] for row in likeness.argmax(1).tolist()]
        return found


@torch.inference_mode()
def _features(
    examples: Sequence[Example],
    encode: Callable[[torch.Tensor], torch.Tensor],
    transform: Transform,
    workers: int,
):
    """Yield features (N,C) of length 1, batch by batch; raises `ValueError` naming an image that cannot be read."""
    images = ImageDataset(examples, transform)
    own = torch.Generator()  # nothing that is drawn elsewhere must depend on it
    for batch in DataLoader(
        images, batch_size=_BATCH, num_workers=workers, collate_fn=_pixels, generator=own
    ):
        if isinstance(batch, BadImage):
            raise bad_image_ends(batch)
        yield torch.nn.functional.normalize(encode(batch).float().cpu(), dim=1)


def _pixels(items: list[tuple[Example, torch.Tensor | BadImage]]) -> torch.Tensor | BadImage:
    for _, pixels in items:
        if isinstance(pixels, BadImage):
            return pixels
    return torch.stack([pixels for _, pixels in items])
