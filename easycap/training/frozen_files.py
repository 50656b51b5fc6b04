"""Files of frozen weights: written once, then linked by further checkpoints and by other runs in the same folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from easycap.models.stored_weights import Tensors, frozen_file, in_own_precision

# (device, inode, size, time of change) of a file
_State = tuple[int, int, int, int]


class FrozenPart(NamedTuple):
    """Frozen weights, the name of the file they are stored in, and an intact file with them, if there is one."""

    tensors: Tensors
    name: str
    existing: Path | None

    @property
    def new_bytes(self) -> int:
        """How many bytes a checkpoint needs for it, at most."""
        if self.existing is not None:
            return 0
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


class FrozenFiles:
    """Stores frozen weights in checkpoints, as hard links to a file that has them already.

    That file is looked for in the checkpoints of the same run, and in those of the runs next to it. Where there is
    none, or the disk has no hard links, it is written.
    """

    def __init__(self) -> None:
        self._searches: Counter[str] = Counter()
        self._names: dict[_State, str] = {}  # the name that a known file's content gives it

    def find(self, parts: Iterable[Tensors], checkpoint: Path) -> list[FrozenPart]:
        """Return the frozen parts of a model, with the files that a `checkpoint` to be written can share."""
        names = [(tensors, frozen_file(tensors)) for tensors in parts]
        return [FrozenPart(tensors, name, self._existing(name, checkpoint)) for tensors, name in names]

    def store(self, part: FrozenPart, folder: Path) -> Path | None:
        """Store a part in `folder`; return the existing file if it is a link to that."""
        target = folder / part.name
        if part.existing is not None:
            try:
                os.link(part.existing, target)
                return part.existing
            except OSError:  # no hard links on this disk, or too many
                pass
        save_file({name: in_own_precision(t).contiguous() for name, t in part.tensors.items()}, target)
        self._names[_state(target)] = part.name
        return None

    def _existing(self, name: str, checkpoint: Path) -> Path | None:
        found = {path for path in checkpoint.parent.glob(f"*/{name}") if not path.parent.name.startswith(".")}
        # Runs of a sweep that start together all write the file; at their second save they all link the oldest one.
        if checkpoint.parent.name == "checkpoints" and self._searches[name] < 2:
            self._searches[name] += 1
            found |= set(checkpoint.parents[2].glob(f"*/checkpoints/*/{name}"))
        return next((path for path in sorted(found, key=_age) if self._is_intact(path, name)), None)

    def _is_intact(self, path: Path, name: str) -> bool:
        """Whether a file, of this user, has the content that its name says."""
        try:
            state = _state(path)
            if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
                return False
            if state not in self._names:
                self._names[state] = frozen_file(load_file(path))
        except (OSError, SafetensorError):
            return False
        return self._names[state] == name


def _state(path: Path) -> _State:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _age(path: Path) -> tuple[int, str]:
    try:
        return path.stat().st_mtime_ns, str(path)
    except OSError:  # its run has just replaced it
        return 0, str(path)
