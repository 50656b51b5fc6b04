"""Find a run and what lies in its folder."""

from __future__ import annotations

import glob
import json
import os
import sys
from pathlib import Path

from easycap.errors import UserError
from easycap.utils.checksums import damage
from easycap.utils.files import write_atomically
from easycap.utils.paths import expanded, outputs_dir
from easycap.utils.shell import quoted
from easycap.utils.text import printable

# Files of a checkpoint: its weights, and the config it was trained with.
MODEL, CONFIG = "model.safetensors", "config.json"
# Of a sweep: its commands, and the folders of its runs.
SWEEP = "sweep.json"
# Of an ensemble: the runs it is made of.
ENSEMBLE = "ensemble.json"
# Of the checkpoints of epochs, with the epoch's number (from 1) after it.
EPOCH = "epoch-"
# Begins the name of a pretrained captioner of transformers that stands in the place of a run.
PRETRAINED = "hf:"


def is_pretrained(name: str | os.PathLike[str]) -> bool:
    """Return whether a name of a run is hf:NAME_OR_FOLDER."""
    return os.fspath(name).startswith(PRETRAINED)


def find_run(name: str | Path) -> Path:
    """Return the folder that `name` means: a path, or a run or sweep as `easycap runs` names it.

    A name that is not found is returned unchanged. Raises `UserError` if several runs have the name.
    """
    if name == "":
        raise UserError("the name of a run is empty")
    path = expanded(name)
    if path.exists() or len(path.parts) > 2:
        return path
    found = [
        folder
        for pattern in ("runs", "sweeps", "sweeps/*", "")
        for folder in sorted(outputs_dir().glob(f"{pattern}/{glob.escape(str(path))}".lstrip("/")))
        if folder.is_dir()
    ]
    if len(found) > 1:
        raise UserError(f"several runs are named {name}: {', '.join(map(shown, found))}; give the path")
    return found[0] if found else path


def checkpoint_of(run: Path) -> Path:
    """Return the folder of a run's best weights (else its last), or `run` itself if it is a checkpoint.

    Raises `UserError` saying what is missing, or which of its files is damaged.
    """
    run = find_run(run)
    if not run.is_dir():
        raise UserError(f"{run} is not a folder; `easycap runs` lists all runs")
    kept = (
        "best",
        "best.previous",
        "last",
        "last.previous",
    )  # the second of each after a kill between two renames
    for folder in (run, *(run / "checkpoints" / name for name in kept)):
        if (folder / MODEL).is_file():
            if folder == run:
                _check_own(folder)
            _check_intact(folder)
            return folder
    if (run / ENSEMBLE).is_file():
        raise UserError(f"{shown(run)} is an ensemble and has no weights of its own: name one of its runs")
    # loads a parser of YAML, which finding a run does not need
    from easycap.runs.reading import is_run, read_result

    if is_run(run):
        result = read_result(run) or {}
        if "pretrained" in result:
            raise UserError(
                f"{shown(run)} has the scores of a pretrained captioner and no weights: name the captioner itself, "
                f"{PRETRAINED}{result['pretrained']}"
            )
        if "imported" in result:
            raise UserError(
                f"{shown(run)} holds captions that were imported, and no model: `easycap compare` puts it beside others"
            )
        raise UserError(
            f"{shown(run)} has no checkpoint yet; `easycap runs` shows how far it is, and `easycap train "
            f"resume={shown(run)}` continues it if it has stopped"
        )
    raise UserError(
        f"{run} holds no checkpoint (checkpoints/best): is it a run's folder? `easycap runs` lists them"
    )


def _check_own(folder: Path) -> None:
    """Raise `UserError` if a folder with weights is a model of transformers."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(config, dict) and "model_type" in config and "task" not in config:
        raise UserError(
            f"{shown(folder)} is a model of transformers and not of easycap: a captioner is used by the name "
            f"{PRETRAINED}{shown(folder)}"
        )


def _check_intact(checkpoint: Path) -> None:
    """Raise `UserError` naming the damaged file of a checkpoint, and another checkpoint of its run that is whole."""
    reason = damage(checkpoint)
    if reason is None:
        return
    others = [checkpoint.with_name(name) for name in ("best", "last", "last.previous")]
    whole = [one for one in others if one != checkpoint and (one / MODEL).is_file() and damage(one) is None]
    remedy = f"; use {shown(whole[0])} instead" if run_of(checkpoint) != checkpoint and whole else ""
    raise UserError(f"{shown(checkpoint)} is damaged: {reason}{remedy or '; restore it from a copy'}")


def epochs_kept(checkpoints: Path) -> list[Path]:
    """Return the checkpoints of epochs in a run's folder of checkpoints, the first epoch first."""
    found = {
        int(number): path
        for path in checkpoints.glob(f"{EPOCH}*")
        if (number := path.name.removeprefix(EPOCH)).isdecimal() and (path / MODEL).is_file()
    }
    return [found[number] for number in sorted(found)]


def run_of(checkpoint: Path) -> Path:
    """Return the folder of the run that a checkpoint is one of, the checkpoint's own where that stands alone."""
    return checkpoint.parents[1] if checkpoint.parent.name == "checkpoints" else checkpoint


def shown(value: object) -> str:
    """Return a path or an argument as one would type it: relative to the current folder, quoted for the shell."""
    text = str(value)
    if isinstance(value, Path) and value.is_absolute() and value.is_relative_to(Path.cwd()):
        text = str(value.relative_to(Path.cwd()))
    if printable(text) == text:
        return quoted(text)
    # As bash and zsh read control characters.
    return "$'" + printable(text.replace("\\", "\\\\").replace("'", "\\'")) + "'"


def write_text(target: str, text: str) -> None:
    """Write what a command was asked for to the file `target`, or to standard output where that is "-".

    Raises `UserError` if the file cannot be written.
    """
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        write_atomically(Path(target), text)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}") from None


def task_of(folder: Path) -> str:
    """Return the task of a checkpoint's model, caption or tags; `UserError` or `OSError` if it cannot be read."""
    return json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("task", "caption")
