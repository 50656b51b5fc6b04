"""`easycap runs`: the runs there are; and finding things in a run's folder."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from easycap.paths import outputs_dir


def checkpoint_of(run: Path) -> Path:
    """Return the folder of a run's best weights (else its last), or `run` itself if it is a checkpoint.

    Raises `ValueError` saying what is missing.
    """
    if not run.is_dir():
        raise ValueError(f"{run} is no folder; `easycap runs` lists the runs there are")
    kept = (
        "best",
        "best.previous",
        "last",
        "last.previous",
    )  # the second of each after a kill between two renames
    for folder in (run, *(run / "checkpoints" / name for name in kept)):
        if (folder / "model.safetensors").is_file():
            return folder
    raise ValueError(
        f"{run} holds no checkpoint (checkpoints/best): is it a run's folder? `easycap runs` lists them"
    )


def run_of(checkpoint: Path) -> Path:
    """Return the folder of the run that a checkpoint is one of, the checkpoint's own where that stands alone."""
    return checkpoint.parents[1] if checkpoint.parent.name == "checkpoints" else checkpoint


def shown(value: object) -> str:
    """Return a path or an argument as one would type it: relative to the current folder, quoted for the shell."""
    text = str(value)
    if isinstance(value, Path) and value.is_absolute() and value.is_relative_to(Path.cwd()):
        text = str(value.relative_to(Path.cwd()))
    return shlex.quote(text)


def write_text(target: str, text: str) -> None:
    """Write what a command was asked for to the file `target`, or to standard output where that is "-".

    Raises `ValueError` if the file cannot be written.
    """
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{target} cannot be written: {error.strerror or error}") from None


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap runs`."""
    parser = argparse.ArgumentParser(
        prog="easycap runs", description="List runs with their status and scores."
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=outputs_dir(), help="where to look (default: outputs/)"
    )
    args = parser.parse_args(argv)
    from rich.console import Console

    from easycap.report import list_runs, runs_table

    if not args.folder.is_dir():
        raise ValueError(f"{args.folder} is no folder")
    runs = list_runs(args.folder)
    if not runs:
        raise ValueError(f"no runs below {args.folder}; `easycap train` makes one")
    Console().print(runs_table(runs))
    return 0
