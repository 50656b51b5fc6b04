"""The index of a shard: where each file of a tar lies, and the texts among them; made once, checked before use.

Files are grouped into samples as WebDataset does: those that follow each other and have the same name up to the first
dot of its last part are a sample; the rest of the name is the suffix.
"""

from __future__ import annotations

import tarfile
import zlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Self

import numpy as np

from easycap.data.image_files import SUFFIXES
from easycap.errors import UserError
from easycap.utils.string_column import StringBuilder, StringColumn

HEADER = 512  # bytes before the content of each file in a tar
TEXTS = ("txt", "json")  # files whose content is kept, by the last part of the suffix
_LONGEST_TEXT = 1 << 24
_FIRST_FILES = 50  # that tell shards from other archives
WIDTHS = {"sample": np.int32, "suffix": np.int16, "offset": np.int64, "length": np.int64, "crc": np.uint32}


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The M files of a tar of `size` bytes, of S samples.

    `keys` (S,) names samples. Of each file: `sample` (M,), `suffix` (M,), a place in `suffixes`, `offset` and `length`
    (M,) of its content in the tar, and `crc` (M,) of the header before it. `texts` are the contents of the files
    `text` (T,). `faults` say what is wrong with the tar.
    """

    size: int
    keys: StringColumn
    suffixes: tuple[str, ...]
    sample: np.ndarray
    suffix: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    crc: np.ndarray
    text: np.ndarray
    texts: StringColumn
    faults: tuple[str, ...]

    def files_with(self, is_wanted: Callable[[str], bool]) -> np.ndarray:
        """Return the files (K,) whose suffix `is_wanted`."""
        wanted = [is_wanted(suffix) for suffix in self.suffixes]
        return np.flatnonzero(np.array(wanted, bool)[self.suffix])


def index_of(file: IO[bytes], size: int, name: str, advance: Callable[[int], None]) -> ShardIndex:
    """Read the headers and texts of a tar of `size` bytes; images are skipped by seeking.

    `advance` is called with the number of bytes done so far. Raises `UserError` if `name` is not a tar; one that is
    truncated or damaged has faults, and the samples before them.
    """
    members = _Members()
    faults: list[str] = []
    try:
        with tarfile.open(fileobj=file, mode="r:", tarinfo=_Header) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else all are kept
                if member.offset_data + member.size > size:
                    faults.append(f"is truncated in the middle of {member.name}: it has only {size:,} bytes")
                    break
                members.add(tar, member)
                advance(member.offset_data + member.size)
            else:
                faults += _fault_at_end(file, tar.offset, members.last)
    except tarfile.ReadError as error:
        if members.last is None:
            raise UserError(_not_a_tar(name, error)) from None
        faults.append(f"is damaged after {members.last} ({error})")
    return members.index(size, [*faults, *members.faults])


def is_shard(path: Path) -> bool:
    """Return whether the first files of a tar are samples with an image and a text."""
    suffixes: dict[str, set[str]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in islice(tar, _FIRST_FILES):
                name = PurePosixPath(member.name).name
                key, _, suffix = name.partition(".")
                suffixes.setdefault(key, set()).add(suffix.lower().rpartition(".")[2])
    except (OSError, tarfile.TarError):
        return False
    return any(its & set(TEXTS) and any(f".{one}" in SUFFIXES for one in its) for its in suffixes.values())


def _fault_at_end(file: IO[bytes], end: int, last: str | None) -> list[str]:
    """What is wrong at the place of the last header: tarfile takes anything there as the end of the archive."""
    file.seek(end)
    mark = file.read(HEADER)
    if not mark:
        return [f"is truncated after {last}: the end-of-archive mark is missing"]
    return [f"is damaged after {last}: what follows is not a file header"] if any(mark) else []


class _Header(tarfile.TarInfo):
    """The header of a file, and the CRC-32 of its bytes."""

    crc = 0

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = cls._of_file(bytes(buf)) or super().frombuf(buf, encoding, errors)
        header.crc = zlib.crc32(buf)
        return header

    @classmethod
    def _of_file(cls, header: bytes) -> Self | None:
        """The name and the size of a regular file, in half the time; None for all else, and for what is damaged."""
        if header[257:262] != b"ustar" or header[156:157] not in (b"0", b"\0"):
            return None
        try:
            stated, size = int(header[148:156].strip(b" \0"), 8), int(header[124:136].strip(b" \0"), 8)
            name, prefix = (part.partition(b"\0")[0].decode() for part in (header[:100], header[345:500]))
        except ValueError:
            return None
        if stated != sum(header) - sum(header[148:156]) + 8 * 32 or name.endswith("/"):
            return None
        found = cls(f"{prefix}/{name}" if prefix else name)
        found.size = size
        return found


def _not_a_tar(name: str, error: tarfile.ReadError) -> str:
    if name.endswith((".gz", ".tgz", ".bz2", ".xz", ".zst")):
        return f"{name} is compressed, and images in it cannot be read one by one: unpack it to a .tar first"
    return f"{name} is not a tar file ({error}): replace it, or leave it out of data.train, data.val and data.test"


class _Members:
    """Collects the files of a tar."""

    def __init__(self) -> None:
        from webdataset.tariterators import base_plus_ext  # whoever reads shards has checked the extra

        self._split = base_plus_ext
        self._keys, self._texts = StringBuilder(), StringBuilder()
        self._columns = {name: array("q") for name in WIDTHS}
        self._suffixes: dict[str, int] = {}
        self._text, self._seen = array("q"), set[int]()
        self._key: str | None = None
        self._count = 0
        self.last: str | None = None
        self.faults: list[str] = []

    def __len__(self) -> int:
        return len(self._columns["offset"])

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Add a file; folders, links and WebDataset's own notes (`__name__`) are passed over."""
        self.last = member.name
        name = member.name.removeprefix("./")
        if not member.isreg() or (name.startswith("__") and "__" in name[2:].partition("/")[0]):
            return
        key, suffix = self._split(name)
        if key is None:
            return
        if key != self._key:
            self._begin(key)
        suffix = suffix.lower()
        number = self._suffixes.setdefault(suffix, len(self._suffixes))
        if suffix.rpartition(".")[2] in TEXTS:
            self._add_text(tar, member)
        assert isinstance(member, _Header)
        values = (self._count - 1, number, member.offset_data, member.size, member.crc)
        for column, value in zip(self._columns.values(), values, strict=True):
            column.append(value)

    def _begin(self, key: str) -> None:
        self._key = key
        self._keys.append(key)
        self._count += 1
        if hash(key) in self._seen:
            self.faults.append(f"has the sample {key!r} in two places: name samples differently")
        self._seen.add(hash(key))

    def _add_text(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        if member.size > _LONGEST_TEXT:
            self.faults.append(f"has a text of {member.size:,} bytes, {member.name}: not read")
            return
        opened = tar.extractfile(member)
        assert opened is not None  # it is a regular file
        self._text.append(len(self))
        self._texts.append(opened.read().decode("utf-8-sig", "surrogateescape"))

    def index(self, size: int, faults: list[str]) -> ShardIndex:
        """Return the index of what was added."""
        columns = {
            name: np.frombuffer(self._columns[name], np.int64).astype(kind) for name, kind in WIDTHS.items()
        }
        text = np.frombuffer(self._text, np.int64).astype(np.int32)
        return ShardIndex(
            size,
            self._keys.column(),
            tuple(self._suffixes),
            **columns,
            text=text,
            texts=self._texts.column(),
            faults=tuple(faults),
        )
