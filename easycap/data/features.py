"""A frozen encoder runs once per image: its features on disk, shared by epochs, runs and the cells of a sweep."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from easycap.data.images import BadImage, identity
from easycap.data.loader import ImageDataset, bad_image_ends
from easycap.data.transforms import Transform
from easycap.processes import lock
from easycap.types import Example, Features, ImageSource

logger = logging.getLogger(__name__)

_LIBRARIES = ("timm", "torch", "torchvision", "pillow", "simplejpeg")  # encoders, and what reads images
_SPARE = 1 << 30  # bytes of disk left to others


def fingerprint(state: Iterable[tuple[str, torch.Tensor]], *settings: object) -> str:
    """Return 16 hex digits of weights, name by name and byte by byte, of the libraries that make features of them, and
    of what else features depend on."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(repr([version(name) for name in _LIBRARIES]).encode())
    for name, tensor in state:
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    digest.update(repr(settings).encode())
    return digest.hexdigest()


class FeatureCache:
    """Features (R,C) of images in half precision, a row of one file each: image -> tensor (R,C) float16.

    Masked cells are stored as NaN, as in batches.

    The file lies in a folder of `root` named by the encoder's `fingerprint` and the images (their paths, sizes and
    times of change): another encoder, other weights, other preprocessing, changed images or another code that reads
    them are another folder.
    """

    def __init__(self, root: Path, examples: Sequence[Example], fingerprint: str) -> None:
        self.examples = examples
        self.rows = {example.image: row for row, example in enumerate(examples)}
        digest = hashlib.blake2b(digest_size=8)
        for code in ("images.py", "transforms.py"):  # which make the pixels that are encoded
            digest.update(Path(__file__).with_name(code).read_bytes())
        for example in examples:
            digest.update(identity(example.image).encode())
        self.folder = root / fingerprint / digest.hexdigest()
        self._features: np.ndarray | None = None

    def fill(
        self,
        encode: Callable[[torch.Tensor], Features],
        transform: Transform,
        *,
        batch_size: int,
        workers: int,
    ) -> None:
        """Encode what is not there yet; `encode` takes images (N,3,S,S) uint8, R is the same for all.

        Rows count once they are on the disk, so that a kill costs one batch; who asks meanwhile waits. Raises
        `ValueError` for a disk that is too small, a damaged cache, or an image that cannot be read.
        """
        with lock(self.folder / ".lock"):
            left = self._left()
            if left:
                self._tell_of_others()
                self._encode_rows(left, encode, transform, batch_size=batch_size, workers=workers)
        self._open()

    def __call__(self, image: ImageSource) -> torch.Tensor:
        return torch.from_numpy(self._open()[self.rows[image]].copy())

    # ------------------------------------------------------------------------------------------- files

    def _left(self) -> list[int]:
        """The rows without features."""
        done = self.folder / "done"
        if not done.exists():
            return list(range(len(self.examples)))
        self._check()
        return np.flatnonzero(np.fromfile(done, dtype=np.uint8) == 0).tolist()

    def _tell_of_others(self) -> None:
        """Say that features of the same images lie there and why they are not taken."""
        others = self.folder.parent.parent.glob(f"*/{self.folder.name}/done")
        for other in sorted(others):
            if other.parent != self.folder:
                logger.info(
                    "the features in %s are of the same images by another encoder, other weights or another "
                    "preprocessing: not taken",
                    other.parent,
                )

    def _check(self) -> None:
        """Raise `ValueError` unless the files are whole and of the shape they are said to have."""
        try:
            shape = json.loads((self.folder / "shape.json").read_text(encoding="utf-8"))
            sizes = [(self.folder / name).stat().st_size for name in ("features", "done")]
        except (OSError, ValueError) as error:
            raise ValueError(f"the feature cache {self.folder} is damaged ({error}): remove it") from None
        if shape[0] != len(self.examples) or sizes != [2 * int(np.prod(shape)), shape[0]]:
            raise ValueError(
                f"the feature cache {self.folder} is damaged ({sizes[0]} bytes of features of shape {shape}, "
                f"{sizes[1]} marks of {len(self.examples)} images): remove it"
            )

    def _begin(self, cells: torch.Tensor) -> None:
        """Make the files, for rows of the shape of `cells` (N,R,C)."""
        shape = [len(self.examples), *cells.shape[1:]]
        size = 2 * int(np.prod(shape))
        free = shutil.disk_usage(self.folder).free - _SPARE
        if size > free:
            raise ValueError(
                f"the features of {shape[0]:,} images need {size / 1e9:.1f} GB, {max(0, free) / 1e9:.1f} GB are free "
                f"in {self.folder.parent}: set EASYCAP_CACHE to a larger disk, or trainer.cache_features=false"
            )
        logger.info("features of %s images, %.2f GB, go to %s", f"{shape[0]:,}", size / 1e9, self.folder)
        with (self.folder / "features").open("wb") as file:
            file.truncate(size)
        (self.folder / "shape.json").write_text(json.dumps(shape), encoding="utf-8")
        (self.folder / "done").write_bytes(bytes(shape[0]))  # last: it says that the others are there

    def _encode_rows(
        self,
        rows: list[int],
        encode: Callable[[torch.Tensor], Features],
        transform: Transform,
        *,
        batch_size: int,
        workers: int,
    ) -> None:
        begun = (self.folder / "done").exists()
        images = Subset(ImageDataset(self.examples, transform), rows)
        batches = DataLoader(
            images,
            batch_size=batch_size,
            num_workers=workers,
            collate_fn=_stacked,
            generator=torch.Generator(),  # its own: training must not depend on what was cached before
        )
        for first, batch in zip(range(0, len(rows), batch_size), batches, strict=True):
            if isinstance(batch, BadImage):
                raise bad_image_ends(batch)
            found = encode(batch)
            if not begun:
                self._begin(found.cells)
                begun = True
            self._write(rows[first : first + batch_size], found)

    def _write(self, rows: list[int], found: Features) -> None:
        half, mask = found.cells.to(torch.float16).cpu(), found.mask.cpu()
        if not torch.isfinite(half[mask]).all():
            raise ValueError(
                "the encoder's features are too large for half precision: set trainer.cache_features=false"
            )
        half[~mask] = float("nan")
        with (self.folder / "features").open("r+b") as features, (self.folder / "done").open("r+b") as done:
            for row, values in zip(rows, half.numpy(), strict=True):
                features.seek(row * values.nbytes)
                features.write(values.tobytes())
            features.flush()
            os.fsync(features.fileno())
            for row in rows:
                done.seek(row)
                done.write(b"\1")

    def _open(self) -> np.ndarray:
        if self._features is None:
            shape = tuple(json.loads((self.folder / "shape.json").read_text(encoding="utf-8")))
            self._features = np.memmap(self.folder / "features", dtype=np.float16, mode="r", shape=shape)
        return self._features


class FrozenView:
    """What a model gets of an image: cached features until the epoch `live_from` (None: for ever), then its pixels."""

    def __init__(
        self, caches: Sequence[FeatureCache], transform: Transform, *, live_from: int | None
    ) -> None:
        self.caches, self.transform, self.live_from, self.live = caches, transform, live_from, False

    def begin_epoch(self, epoch: int) -> None:
        """Called before an epoch (from 0) is loaded; processes that load are forked after it."""
        self.live = self.live_from is not None and epoch >= self.live_from

    def of(self, example: Example) -> torch.Tensor:
        """Return the features (R,C) float16 of an example, or its pixels (3,S,S)."""
        if not self.live:
            for cache in self.caches:
                if example.image in cache.rows:
                    return cache(example.image)
        return self.transform.of(example)


def _stacked(items: list[tuple[Example, torch.Tensor | BadImage]]) -> torch.Tensor | BadImage:
    for _, pixels in items:
        if isinstance(pixels, BadImage):
            return pixels
    return torch.stack([pixels for _, pixels in items])
