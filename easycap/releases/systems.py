"""The systems whose released weights can be imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from easycap.errors import UserError
from easycap.registry import describe_choices
from easycap.releases import clipcap, meshed_memory, ruotianluo, sgrvinod
from easycap.releases.release import Release, System
from easycap.releases.torch_files import ReleasedFile, read_released
from easycap.runs.find import find_run, shown

SYSTEMS: dict[str, System] = {
    one.SYSTEM.name: one.SYSTEM for one in (meshed_memory, ruotianluo, clipcap, sgrvinod)
}


def read_release(name: str, paths: Sequence[Path]) -> Release:
    """Return the model that the files of a release hold.

    Raises `UserError` for a system that is not known, files that cannot be read, and weights of another system.
    """
    if name not in SYSTEMS and (run := find_run(name)).is_dir():
        raise UserError(
            f"{shown(run)} is a folder and not a system: a run of easycap, of an earlier version too, is used as it "
            f"is, e.g. easycap evaluate {shown(run)}"
        )
    if name not in SYSTEMS:
        raise UserError(f"there is no system {name!r}; {describe_choices(name, [*SYSTEMS, 'captions'])}")
    if not paths:
        raise UserError(f"give the files of the release: easycap import {name} {SYSTEMS[name].files}")
    files = [read_released(path) for path in paths]
    for file in files:
        _check_system(SYSTEMS[name], file, paths)
    return SYSTEMS[name].read(files)


def _check_system(system: System, file: ReleasedFile, paths: Sequence[Path]) -> None:
    """Raise `UserError` if a file holds the weights of another system."""
    if system.recognise(file.content) is not None:
        return
    for other in SYSTEMS.values():
        if (model := other.recognise(file.content)) is not None:
            whose = other.name if model == other.name else f"{other.name}'s {model}"
            words = " ".join(map(shown, paths))
            raise UserError(
                f"{file.path} holds the weights of {whose}: use easycap import {other.name} {words}"
            )
