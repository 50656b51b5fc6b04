"""One array per image, computed once and kept on disk for every process and run that needs it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from easycap.data.loader import image_batches
from easycap.errors import UserError
from easycap.types import Example, ImageInput, ImageSource
from easycap.utils.processes import lock
from easycap.utils.progress_bar import Progress, duration

logger = logging.getLogger(__name__)

_SPARE = 1 << 30  # bytes of disk left to others


class CannotCache(UserError):
    """Arrays cannot be cached; they can still be computed each time they are needed."""


class ArrayCache:
    """Arrays (...) of one shape in half precision, a row of one file each: image -> tensor (...) float16.

    `what` the arrays are names the file, and the arrays in messages. The file lies in a folder of `root` named by
    `fingerprint` and by the images (paths, sizes and times of change): another model, other preprocessing, changed
    images or other code that reads them are another folder.
    """

    remedy = ""  # besides a larger disk, where the disk is too small

    def __init__(self, root: Path, examples: Sequence[Example], fingerprint: str, *, what: str) -> None:
        self.examples, self.what = examples, what
        self.rows = {example.image: row for row, example in enumerate(examples)}
        digest = hashlib.blake2b(digest_size=8)
        for code in ("images.py", "transforms.py"):  # which make the pixels that are computed on
            digest.update(Path(__file__).with_name(code).read_bytes())
        for example in examples:
            digest.update(example.image.identity().encode())
        self.folder = root / fingerprint / digest.hexdigest()
        self._arrays: np.ndarray | None = None

    def fill(
        self,
        compute: Callable[[torch.Tensor], torch.Tensor],
        transform: ImageInput,
        *,
        batch_size: int,
        workers: int | str,
        progress: str,
    ) -> None:
        """Compute what is not there yet; `compute` maps images (N,3,S,S) uint8 to arrays (N,...).

        `progress` names the work while its progress is shown. Rows count once they are on the disk, so that a kill
        costs one batch; other processes that need the same cache wait. Raises `CannotCache` for a disk that is too
        small or a damaged cache, and `UserError` for an image that cannot be read.
        """
        with lock(self.folder / ".lock"):
            left = self.left()
            if left:
                self._report_others()
                self._compute_rows(
                    left, compute, transform, batch_size=batch_size, workers=workers, progress=progress
                )
        self._open()

    def left(self) -> list[int]:
        """Return the rows that are not computed yet; raises `CannotCache` for a damaged cache."""
        done = self.folder / "done"
        if not done.exists():
            return list(range(len(self.examples)))
        self._check()
        return np.flatnonzero(np.fromfile(done, dtype=np.uint8) == 0).tolist()

    def __call__(self, image: ImageSource) -> torch.Tensor:
        """Return an image's array as a tensor."""
        return torch.from_numpy(self._open()[self.rows[image]].copy())

    # ------------------------------------------------------------------------------------------- files

    def _report_others(self) -> None:
        """Log that arrays of the same images are there and why they are not used."""
        others = self.folder.parent.parent.glob(f"*/{self.folder.name}/done")
        for other in sorted(others):
            if other.parent != self.folder:
                logger.info(
                    "the %s in %s are not used: another encoder, other weights or other preprocessing made "
                    "them",
                    *(self.what, other.parent),
                )

    def _check(self) -> None:
        """Raise `CannotCache` unless the files are whole and of the stated shape."""
        try:
            shape = json.loads((self.folder / "shape.json").read_text(encoding="utf-8"))
            sizes = [(self.folder / name).stat().st_size for name in (self.what, "done")]
        except (OSError, ValueError) as error:
            raise CannotCache(
                f"the cache of {self.what} {self.folder} is damaged ({error}): remove it"
            ) from None
        if shape[0] != len(self.examples) or sizes != [2 * int(np.prod(shape)), shape[0]]:
            raise CannotCache(
                f"the cache of {self.what} {self.folder} is damaged ({sizes[0]} bytes for shape {shape}, "
                f"{sizes[1]} marks of {len(self.examples)} images): remove it"
            )

    def _begin(self, arrays: torch.Tensor) -> None:
        """Create the files, for rows of the shape of `arrays` (N,...)."""
        shape = [len(self.examples), *arrays.shape[1:]]
        size = 2 * int(np.prod(shape))
        free = shutil.disk_usage(self.folder).free - _SPARE
        if size > free:
            raise CannotCache(
                f"the {self.what} of {shape[0]:,} images need {size / 1e9:.1f} GB, {max(0, free) / 1e9:.1f} GB are "
                f"free in {self.folder.parent}: set EASYCAP_CACHE to a larger disk{self.remedy}"
            )
        with (self.folder / self.what).open("wb") as file:
            file.truncate(size)
        (self.folder / "shape.json").write_text(json.dumps(shape), encoding="utf-8")
        (self.folder / "done").write_bytes(bytes(shape[0]))  # last: it says that the others are there

    def _compute_rows(
        self,
        rows: list[int],
        compute: Callable[[torch.Tensor], torch.Tensor],
        transform: ImageInput,
        *,
        batch_size: int,
        workers: int | str,
        progress: str,
    ) -> None:
        begun = (self.folder / "done").exists()
        images = [self.examples[row] for row in rows]
        batches = image_batches(images, transform, batch_size=batch_size, workers=workers)
        started = time.perf_counter()
        with Progress(progress, len(rows)) as bar:
            for first, batch in zip(range(0, len(rows), batch_size), batches, strict=True):
                found = compute(batch)
                if not begun:
                    self._begin(found)
                    begun = True
                self._write(rows[first : first + batch_size], found)
                # Measured on the second batch: the first one takes what only a first one takes.
                if first == batch_size or len(rows) <= batch_size:
                    batches_left = (len(rows) - first) / batch_size
                    self._report(found, len(rows), batches_left * (time.perf_counter() - started))
                started = time.perf_counter()
                bar.advance(len(batch))

    def _report(self, arrays: torch.Tensor, images: int, seconds: float) -> None:
        """Log what is computed, for how many images, its size and the time it still takes."""
        logger.info(
            "caching %s of %s images: %.2f GB in %s, about %s",
            self.what,
            f"{images:,}",
            2 * arrays[0].numel() * images / 1e9,
            self.folder,
            duration(seconds),
        )

    def _write(self, rows: list[int], found: torch.Tensor) -> None:
        half = found.to(torch.float16).cpu()
        shape = json.loads((self.folder / "shape.json").read_text(encoding="utf-8"))[1:]
        if list(half.shape[1:]) != shape:
            raise CannotCache(
                f"{self.what} of shapes {shape} and {list(half.shape[1:])} do not fit into one file"
            )
        with (self.folder / self.what).open("r+b") as file, (self.folder / "done").open("r+b") as done:
            for row, values in zip(rows, half.numpy(), strict=True):
                file.seek(row * values.nbytes)
                file.write(values.tobytes())
            file.flush()
            os.fsync(file.fileno())
            for row in rows:
                done.seek(row)
                done.write(b"\1")

    def _open(self) -> np.ndarray:
        if self._arrays is None:
            shape = tuple(json.loads((self.folder / "shape.json").read_text(encoding="utf-8")))
            self._arrays = np.memmap(self.folder / self.what, dtype=np.float16, mode="r", shape=shape)
        return self._arrays
