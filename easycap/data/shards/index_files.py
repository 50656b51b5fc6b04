"""Indexes of shards as files: beside the shards, where they were written together, else in the user's cache."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from easycap.data.shards.byte_ranges import NotThere, Reader, RemoteFile, is_url, look_up, read_all
from easycap.data.shards.shard_images import Shard
from easycap.data.shards.tar_index import WIDTHS, ShardIndex, index_of
from easycap.errors import UserError
from easycap.utils.paths import cache_dir
from easycap.utils.processes import lock
from easycap.utils.progress_bar import Progress
from easycap.utils.string_column import StringColumn

logger = logging.getLogger(__name__)

SUFFIX = ".index"  # of train-000000.tar.index beside train-000000.tar
_FORMAT = "easycap shard index 1"
_LOOK_UPS = 16  # at a time
_MB = 1_000_000


def shards_at(places: Sequence[str], *, cache_bytes: int) -> list[Shard]:
    """Return the shards at `places`, paths or addresses; raises `UserError` for one that cannot be read."""
    with ThreadPoolExecutor(_LOOK_UPS) as pool:
        return list(pool.map(partial(_shard_at, cache_bytes=cache_bytes), places))


def _shard_at(place: str, *, cache_bytes: int) -> Shard:
    if is_url(place):
        found = look_up(place)
        return Shard(place, found.size, found.version, cache_bytes)
    try:
        status = Path(place).stat()
    except FileNotFoundError:
        raise UserError(
            f"{place} does not exist: check data.root, data.train, data.val and data.test"
        ) from None
    if not Path(place).is_file():
        raise UserError(f"{place} is not a file")
    return Shard(place, status.st_size, str(status.st_mtime_ns), 0)


def read_indexes(shards: Sequence[Shard], each: Callable[[int, ShardIndex], None]) -> None:
    """Call `each` with the number and the index of each shard.

    An index beside the shard is used if it is of a tar of this size. Where there is none the tar is read once and its
    index kept in the user's cache, until the tar's size, or its modification time or ETag, changes; other processes
    wait. Raises `UserError` for a shard or an index that cannot be read.
    """
    begun, total = 0, sum(shard.size for shard in shards)
    with Progress("reading the index of shards", total // _MB, unit="MB", with_speed=False) as progress:
        for number, shard in enumerate(shards):
            before = begun

            def advance(done: int, before: int = before) -> None:
                progress.reach((before + done) // _MB)

            each(number, _index(shard, advance))
            begun += shard.size
            progress.reach(begun // _MB)


def _index(shard: Shard, advance: Callable[[int], None]) -> ShardIndex:
    beside = _index_beside(shard)
    if beside is not None:
        return beside
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{_FORMAT}\0{_absolute(shard.place)}\0{shard.size}\0{shard.version}".encode())
    kept = cache_dir() / "shards" / "indexes" / f"{digest.hexdigest()}{SUFFIX}"
    with lock(kept.parent / ".locks" / f"{kept.name[:2]}.lock"):
        if kept.is_file():
            return load_index(kept.read_bytes(), str(kept))
        logger.info("%s has no index beside it: reading it once", shard.place)
        index = read_index(shard, advance)
        if not index.faults:  # a tar that is still being written has another end later
            save_index(index, kept)
    return index


def read_index(shard: Shard, advance: Callable[[int], None] = lambda done: None) -> ShardIndex:
    """Return the index of a shard, of which the headers and texts are read."""
    if is_url(shard.place):
        remote: IO[bytes] = io.BufferedReader(Reader(RemoteFile(shard.place, shard.size, shard.version)))
        return index_of(remote, shard.size, shard.place, advance)
    with open(shard.place, "rb") as file:
        return index_of(file, shard.size, shard.place, advance)


def _absolute(place: str) -> str:
    return place if is_url(place) else str(Path(place).absolute())


def index_place(place: str) -> str:
    """Return where the index beside a shard is; the query of an address stays at its end."""
    if not is_url(place):
        return f"{place}{SUFFIX}"
    path, mark, query = place.partition("?")
    return f"{path}{SUFFIX}{mark}{query}"


def _index_beside(shard: Shard) -> ShardIndex | None:
    place = index_place(shard.place)
    try:
        content = read_all(place) if is_url(place) else Path(place).read_bytes()
    except (FileNotFoundError, NotThere):
        return None
    index = load_index(content, place)
    if index.size != shard.size:
        raise UserError(
            f"{place} is the index of a tar of {index.size:,} bytes, and {shard.place} has {shard.size:,}: get the "
            "shard again, or remove the index if the shard was replaced on purpose"
        )
    return index


def save_index(index: ShardIndex, path: Path) -> None:
    """Write an index so that it appears complete or not at all; the same index is the same bytes."""
    header = {"format": _FORMAT, "size": index.size, "suffixes": index.suffixes, "faults": index.faults}
    arrays = {name: getattr(index, name) for name in (*WIDTHS, "text")}
    for name in ("keys", "texts"):
        column = getattr(index, name)
        arrays |= {name: column.data, f"{name}_ends": column.ends}
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    with new.open("wb") as file:
        np.savez(file, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    new.replace(path)


def load_index(content: bytes, place: str) -> ShardIndex:
    """Return the index that a file holds; `UserError` names one that is damaged. Nothing in it is run as code."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(arrays.pop("header").tobytes())
        if header["format"] != _FORMAT:
            raise UserError(f"it is of format {header['format']!r}")
        keys, texts = (StringColumn(arrays.pop(n), arrays.pop(f"{n}_ends")) for n in ("keys", "texts"))
        suffixes, faults = map(str, header["suffixes"]), map(str, header["faults"])
        index = ShardIndex(
            int(header["size"]), keys, tuple(suffixes), texts=texts, faults=tuple(faults), **arrays
        )
        _check(index)
    except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{place} is damaged ({error or type(error).__name__}): remove it") from None
    return index


def _check(index: ShardIndex) -> None:
    """Raise `ValueError` for an index whose parts do not fit together."""
    count = len(index.offset)
    fits = all(getattr(index, name).dtype == kind for name, kind in WIDTHS.items())
    fits &= all(getattr(index, name).shape == (count,) for name in WIDTHS) and len(index.text) == len(
        index.texts
    )
    for column in (index.keys, index.texts):
        fits &= column.data.dtype == np.uint8 and column.ends.dtype == np.int64 and len(column.ends) > 0
        fits &= bool((np.diff(column.ends) >= 0).all() and column.ends[-1] == len(column.data))
    if fits and count:
        ends = index.offset + index.length
        fits = bool(index.offset.min() >= 0 and index.length.min() >= 0 and ends.max() <= index.size)
        fits &= index.sample.min() >= 0 and index.sample.max() < len(index.keys)
        fits &= index.suffix.min() >= 0 and index.suffix.max() < len(index.suffixes)
    if not fits:
        raise UserError("its parts do not fit together")
