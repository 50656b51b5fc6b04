"""Images in tar shards: read at their position when needed, in an order in which neighbours are needed together."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from easycap.data.images import decoded, decoded_array
from easycap.data.issues import UnreadImage
from easycap.data.sampler import Blocks
from easycap.data.shards.block_cache import read_block
from easycap.data.shards.byte_ranges import RemoteFile, Unreachable, is_url
from easycap.data.shards.tar_index import HEADER

# A block is what is read together: the images of neighbouring samples, up to so many and so many bytes.
BLOCK_IMAGES, BLOCK_BYTES = 128, 8 << 20


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar at `place`, a path or an address; `version` changes with its content. Parts of tars at addresses are kept
    on disk, up to `cache_bytes` for all tars together.
    """

    place: str
    size: int
    version: str
    cache_bytes: int

    def read(self, start: int, end: int, block: tuple[int, int]) -> bytes:
        """Return the bytes from `start` to before `end`, which lie in `block`; raises `Unreachable` or `OSError`."""
        if is_url(self.place):
            file = RemoteFile(self.place, self.size, self.version)
            return read_block(file, block, start, end, limit=self.cache_bytes)
        opened = _opened(self.place, self.version)  # held while it is read: another thread may have it closed
        return os.pread(opened.fileno(), end - start, start)


@dataclass(frozen=True, slots=True)
class ShardImage:
    """An image file in a tar: `member` is its name there, `crc` that of the header before its `length` bytes."""

    shard: Shard
    member: str
    offset: int
    length: int
    crc: int
    block: tuple[int, int]

    @property
    def path(self) -> Path:
        """Return the tar with the name of the image, as messages name it."""
        return Path(self.shard.place) / self.member

    def load(self, at_least: int | None = None) -> Image.Image:
        """Return what `ImageFile.load` returns of such a file; raises `BadImage` naming shard and image."""
        return decoded(self.content(), self.path, at_least)

    def array(self, at_least: int | None = None) -> np.ndarray:
        """Return the pixels (H,W,3), uint8, of what `load` returns."""
        return decoded_array(self.content(), self.path, at_least)

    def identity(self) -> str:
        """Return a line that changes with the shard (path or address, size, modification time or ETag) and the
        position in it.
        """
        return f"{self.shard.place}\0{self.shard.size}\0{self.shard.version}\0{self.offset}\n"

    def content(self) -> BytesIO:
        """Return the image file; raises `BadImage` if the shard is no longer the one that was indexed."""
        try:
            found = self.shard.read(self.offset - HEADER, self.offset + self.length, self.block)
        except Unreachable as error:
            raise UnreadImage(self.path, str(error)) from None
        except FileNotFoundError:
            raise UnreadImage(self.path, f"{self.shard.place} no longer exists") from None
        if len(found) != HEADER + self.length or zlib.crc32(found[:HEADER]) != self.crc:
            raise UnreadImage(
                self.path,
                f"{self.shard.place} is not the tar that its index describes ({self.member} is not at byte "
                f"{self.offset:,}): get the shard again, or remove {self.shard.place}.index if there is one",
            )
        return BytesIO(memoryview(found)[HEADER:])


@lru_cache(maxsize=128)
def _opened(place: str, _version: str) -> IO[bytes]:
    return open(place, "rb", buffering=0)


@dataclass(frozen=True, eq=False)
class ShardImages:
    """N images of shards: `shard` (N,) are places in `shards`; `members` their names, `offset`, `length` and `crc` (N,)
    as in `ShardIndex`; `block` (N,) are places in `begins` and `ends` (B,), the bytes of each block.
    """

    shards: Sequence[Shard]
    members: Sequence[str]
    shard: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    crc: np.ndarray
    block: np.ndarray
    begins: np.ndarray
    ends: np.ndarray

    def image(self, row: int) -> ShardImage:
        """Return an image."""
        block = int(self.block[row])
        return ShardImage(
            self.shards[int(self.shard[row])],
            self.members[row],
            int(self.offset[row]),
            int(self.length[row]),
            int(self.crc[row]),
            (int(self.begins[block]), int(self.ends[block])),
        )

    def place(self, row: int) -> Path:
        """Return the tar with the name of the image."""
        return Path(self.shards[int(self.shard[row])].place) / self.members[row]

    def blocks(self, rows: np.ndarray) -> Blocks:
        """Return in which blocks the images `rows` (K,) lie, numbered by those that have any."""
        _, of, counts = np.unique(self.block[rows], return_inverse=True, return_counts=True)
        return Blocks(of, counts)

    def digest(self) -> bytes:
        """Return what changes with the places, sizes and headers of the images, not with where the shards are."""
        digest = hashlib.blake2b(digest_size=16)
        for column in (self.offset, self.length, self.crc):
            digest.update(np.ascontiguousarray(column).data)
        return digest.digest()


def block_numbers(offset: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Return the block (N,) of each image of one shard, from 0; images are in the order of their offsets."""
    numbers = np.zeros(len(offset), np.int64)
    number, images, begin = 0, 0, 0
    for row, (start, end) in enumerate(zip(offset.tolist(), (offset + length).tolist(), strict=True)):
        if images and (images == BLOCK_IMAGES or end - begin > BLOCK_BYTES):
            number, images = number + 1, 0
        if not images:
            begin = start
        images += 1
        numbers[row] = number
    return numbers
