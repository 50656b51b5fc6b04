"""Ensembles on disk: a run whose `ensemble.json` lists its member runs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from easycap.errors import UserError
from easycap.runs.find import ENSEMBLE, MODEL, SWEEP, checkpoint_of, find_run, is_pretrained, run_of, shown
from easycap.runs.reading import is_run, read_result, read_status, runs_in
from easycap.runs.run_folder import new_run_folder
from easycap.utils.files import write_json
from easycap.utils.paths import outputs_dir

COMMANDS = "training_commands"  # key in result.json
_SETTING = re.compile(r"[+~]{0,2}[a-z_]+(\.[\w.-]+)?=.*", re.DOTALL)
# Groups of the config that an ensemble has from its first member alone.
_OF_FIRST = ("decoding", "refine", "validation")


def is_ensemble(folder: Path) -> bool:
    """Return whether a folder is the run of an ensemble."""
    return (folder / ENSEMBLE).is_file()


def members_to_load(folders: Sequence[Path], *, ensemble: bool) -> list[Path] | None:
    """Return the members if `folders` are to be an `ensemble`, or are the run of one; None for a single model.

    Raises `UserError` for several folders without `ensemble`.
    """
    if ensemble:
        return expanded_members(folders)
    if len(folders) > 1:
        raise UserError(
            f"{len(folders)} runs given where one is expected; --ensemble (ensemble=True) averages their probabilities"
        )
    return members_of(folders[0]) if is_ensemble(folders[0]) else None


def evaluation_folder(names: Sequence[Path], *, ensemble: bool, folder: Path | None) -> Path:
    """Return the folder that the scores of runs belong in: the run's own, or that of their `ensemble`.

    `folder` is where that of an ensemble or of hf:NAME is to be. Raises `UserError` for names that do not go together.
    """
    if any(map(is_pretrained, names)):
        return _pretrained_folder(names, folder)
    if settings := _settings_among(names):
        raise UserError(
            f"{settings[0]}: a run is evaluated with the settings it was trained with; only those of the data, "
            "encoder.features=PATH, and options such as --decoding and --batch-size can be changed"
        )
    folders = [find_run(name) for name in names]
    members = members_to_load(folders, ensemble=ensemble)
    if ensemble and members is not None:
        return ensemble_folder(members, folder)
    if folder is not None:
        raise UserError(f"{folder}: only the scores of an ensemble or of hf:NAME can go to another folder")
    return folders[0]


def _settings_among(names: Sequence[Path]) -> list[str]:
    """Return the names that look like GROUP.KEY=VALUE and are not runs."""
    return [str(name) for name in names if _SETTING.fullmatch(str(name)) and not find_run(name).exists()]


def _pretrained_folder(names: Sequence[Path], folder: Path | None) -> Path:
    """Where the scores of hf:NAME go: a new run."""
    if settings := _settings_among(names):
        raise UserError(
            f"{settings[0]} is not a setting of a pretrained captioner: it takes data=NAME data.KEY=VALUE "
            "captioner.KEY=VALUE trainer.precision=VALUE, and options such as --decoding and --batch-size"
        )
    if len(names) > 1:
        raise UserError(f"{names[0]} is scored alone: a pretrained captioner cannot be part of an ensemble")
    if folder is None:
        return new_run_folder(
            outputs_dir() / "runs", ["huggingface", Path(str(names[0])).name.removeprefix("hf:")]
        )
    if folder.exists():
        raise UserError(f"{shown(folder)} exists already: choose another folder")
    return folder.absolute()


def is_model(folder: Path) -> bool:
    """Return whether a folder can be one of an ensemble's members, or has some: a run, checkpoint, model or sweep."""
    return is_run(folder) or any((folder / name).is_file() for name in (MODEL, ENSEMBLE, SWEEP))


def members_of(ensemble: Path) -> list[Path]:
    """Return the folders of an ensemble's members; `UserError` if one is no longer there or the list is damaged."""
    file = ensemble / ENSEMBLE
    try:
        members = [ensemble / str(name) for name in json.loads(file.read_text(encoding="utf-8"))["members"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} is missing or damaged ({error}); evaluate its runs again with --ensemble"
        ) from None
    for member in members:
        if not member.is_dir():
            raise UserError(
                f"{shown(ensemble)} is an ensemble, but its run {os.path.normpath(member)} is missing; move it back"
            )
    return [Path(os.path.normpath(member)) for member in members]


def expanded_members(names: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the members that names of runs, checkpoints, models, sweeps (all their runs) and ensembles stand for.

    Raises `UserError` for a name that is none of these, and for fewer than two members.
    """
    found: list[Path] = []
    for name in names:
        folder = find_run(Path(name))
        if is_ensemble(folder):
            found += members_of(folder)
        elif is_run(folder) or (folder / MODEL).is_file():
            found.append(folder)
        else:
            found += runs_in([folder])
    for folder in found:
        checkpoint_of(folder)
    if len(found) < 2:
        raise UserError(f"an ensemble needs at least two runs, but {' '.join(map(shown, names))} is one")
    return found


def ensemble_folder(members: Sequence[Path], folder: Path | None) -> Path:
    """Return the folder of an ensemble's run: `folder`, else the one that these members have, else a new one.

    It is not created yet. Raises `UserError` if `folder` already is something else.
    """
    wanted = _resolved(members)
    if folder is not None:
        if folder.exists() and not (is_ensemble(folder) and _resolved(members_of(folder)) == wanted):
            raise UserError(
                f"{folder} already exists and is not an ensemble of these runs: choose another folder"
            )
        return folder
    root = outputs_dir() / "runs"
    for file in sorted(root.glob(f"*/{ENSEMBLE}")):
        try:
            if _resolved(members_of(file.parent)) == wanted:
                return file.parent
        except UserError:  # of other runs, which are gone
            continue
    return new_run_folder(root, ["ensemble", str(len(members))])


def write_members(ensemble: Path, members: Sequence[Path]) -> None:
    """Write down the members, relative to the ensemble's folder so that all can be moved together."""
    paths = [_relative(member, ensemble) for member in members]
    write_json(ensemble / ENSEMBLE, {"members": paths})


def training_commands(run: Path) -> list[str]:
    """Return the command that trained a run, or those of the runs that an ensemble or an average is made of; "" where
    it is not known.
    """
    stored = (read_result(run) or {}).get(COMMANDS)
    if isinstance(stored, list) and stored:
        return [str(command) for command in stored]
    return [read_status(run).command or ""]


def commands_of(checkpoints: Iterable[Path]) -> dict[str, list[str]]:
    """Return what result.json has of the commands that trained the runs of `checkpoints`."""
    runs = map(run_of, checkpoints)
    return {COMMANDS: [(read_status(run).command or "") if is_run(run) else "" for run in runs]}


def _relative(member: Path, ensemble: Path) -> str:
    try:
        return Path(os.path.relpath(member.resolve(), ensemble.resolve())).as_posix()
    except ValueError:  # on another drive
        return str(member.resolve())


def _resolved(members: Iterable[Path]) -> list[str]:
    return [str(member.resolve()) for member in members]


def merged_config(configs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Return the plain configs of an ensemble's members as one: where values differ "1 + 2", and the `names`.

    The decoding settings are those of the first.
    """
    about = {"ensemble": {"size": len(configs), "members": list(names)}}
    return about | _merged(configs) | {key: configs[0][key] for key in _OF_FIRST}


def _merged(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for config in configs for key in config):
        values = [config[key] for config in configs if key in config]
        if all(isinstance(value, Mapping) for value in values):
            found[key] = _merged(values)
        elif all(value == values[0] for value in values):
            found[key] = values[0]
        else:
            texts = (value if isinstance(value, str) else json.dumps(value) for value in values)
            found[key] = " + ".join(dict.fromkeys(texts))
    return found
