"""Files of `torch.save`, of today's format (a zip) and that before torch 1.6, read without executing their pickle."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from easycap.errors import UserError, json_fault
from easycap.releases.pickles import Opaque, Storage, StoredTensor, unpickle

_MAGIC = 0x1950A86A20F9469CFC6C  # begins files of the earlier format
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class ReleasedFile:
    """A file's `content` as plain data; its tensors are `StoredTensor`, which `tensor` reads."""

    path: Path
    content: Any
    read_storage: Callable[[Storage, int], bytes] | None = None

    def tensor(self, stored: StoredTensor) -> torch.Tensor:
        """Return a tensor of the file; raises `UserError` if what the file says of it does not fit its numbers."""
        storage, wrong = (
            stored.storage,
            UserError(f"{self.path} is damaged: a tensor does not fit its numbers"),
        )
        if not isinstance(storage, Storage) or storage.kind not in _DTYPES or self.read_storage is None:
            raise wrong
        dtype = _DTYPES[storage.kind]
        if not all(isinstance(part, tuple) for part in (stored.size, stored.stride)):
            raise wrong
        numbers = (storage.count, stored.offset, *stored.size, *stored.stride)
        if not all(isinstance(n, int) and n >= 0 for n in numbers) or len(stored.size) != len(stored.stride):
            raise wrong
        if not math.prod(stored.size):
            return torch.zeros(stored.size, dtype=dtype)
        last = stored.offset + sum((n - 1) * s for n, s in zip(stored.size, stored.stride, strict=True))
        if last >= storage.count or math.prod(stored.size) > storage.count:
            raise wrong
        length = storage.count * dtype.itemsize
        data = self.read_storage(storage, length)
        if len(data) != length:
            raise UserError(f"{self.path} is cut off: download it again")
        flat = torch.frombuffer(bytearray(data), dtype=dtype)
        return flat.as_strided(stored.size, stored.stride, stored.offset).contiguous()

    def tensors(self, stored: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
        """Return the tensors of a state dict; other entries are left out."""
        return {str(name): self.tensor(of) for name, of in stored.items() if isinstance(of, StoredTensor)}


def read_released(path: Path) -> ReleasedFile:
    """Return what a JSON file, a pickle or a file of `torch.save` holds, as plain data.

    Raises `UserError` if it cannot be read, and for a pickle that asks for more than data.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file; check the path")
    if path.suffix == ".safetensors":
        raise UserError(
            f"{path} is of safetensors, which no release here uses: give the authors' own file, of torch.save (.pth, "
            ".pt, .pth.tar)"
        )
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start == b"PK\x03\x04":
            return _zipped(path)
        if start[:1] in (b"{", b"["):
            try:
                return ReleasedFile(path, json.load(file))
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path} cannot be read: {json_fault(error)}") from None
        if start[:1] in (b"<", b"v") or not start:
            what = "is empty" if not start else "is text (a web page, or a pointer to a large file)"
            raise UserError(f"{path} {what}, not weights: download it again")
        content = unpickle(file, path)
        return _of_before_zip(path, file) if content == _MAGIC else ReleasedFile(path, content)


def _zipped(path: Path) -> ReleasedFile:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename: info for info in archive.infolist()}
            root = next(
                (name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")), None
            )
            if root is None:
                raise UserError(
                    f"{path} is a zip archive, but not from torch.save (no data.pkl): give the weights"
                )
            if f"{root}constants.pkl" in entries:
                raise UserError(f"{path} is a TorchScript archive, which holds a program: give a state dict")
            if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
                raise UserError(f"{path} is compressed, which torch.save never does: give the original file")
            if entries.get(f"{root}byteorder") and archive.read(f"{root}byteorder") != b"little":
                raise UserError(
                    f"{path} was written on a big-endian machine: save it again on another machine"
                )
            with archive.open(f"{root}data.pkl") as file:
                content = unpickle(file, path)
    except (zipfile.BadZipFile, OSError, EOFError, KeyError) as error:
        raise UserError(f"{path} is cut off or damaged ({error}): download it again") from None

    def read(storage: Storage, length: int) -> bytes:
        info = entries.get(f"{root}data/{storage.key}")
        if info is None or info.file_size < length:
            return b""
        try:
            with zipfile.ZipFile(path) as archive, archive.open(info) as file:
                return file.read(length)
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise UserError(f"{path} is cut off or damaged ({error}): download it again") from None

    return ReleasedFile(path, content, read)


def _of_before_zip(path: Path, file: IO[bytes]) -> ReleasedFile:
    """After the magic number: a version, facts about the machine, the content, the storages' keys, their numbers."""
    unpickle(file, path), unpickle(file, path)
    content, keys = unpickle(file, path), unpickle(file, path)
    kinds = {storage.key: storage.kind for storage in _storages(content)}
    places: dict[str, tuple[int, int]] = {}
    for key in keys if isinstance(keys, list) else ():
        if key not in kinds or kinds[key] not in _DTYPES:
            raise UserError(f"{path} is damaged: it holds numbers of an unknown type")
        length = int.from_bytes(file.read(8), "little") * _DTYPES[kinds[key]].itemsize
        places[key] = (file.tell(), length)
        file.seek(length, 1)

    def read(storage: Storage, length: int) -> bytes:
        start, there = places.get(storage.key, (0, 0))
        if there < length:
            return b""
        with path.open("rb") as opened:
            opened.seek(start)
            return opened.read(length)

    return ReleasedFile(path, content, read)


def _storages(content: Any) -> Iterator[Storage]:
    """All storages that the tensors in a content refer to, however deep, each object once."""
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, Storage):
            yield one
        elif isinstance(one, StoredTensor):
            waiting.append(one.storage)
        elif isinstance(one, Opaque):
            waiting += [one.args, one.state]
        elif isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += list(one)


def is_pickle_of(content: Any, name: str) -> bool:
    """Return whether a content is an object of a class of this name, wherever the class is defined."""
    return isinstance(content, Opaque) and type(content).path.rpartition(".")[2] == name
