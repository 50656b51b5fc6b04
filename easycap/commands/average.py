"""`easycap average RUN...`: a run whose weights are the mean of those of several checkpoints."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from easycap.api import average
from easycap.runs.find import shown
from easycap.utils.console import say


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="easycap average",
        description="Average the weights of the last epochs of one run, trained with trainer.keep_checkpoints=N, or "
        "the best weights of several runs that started from the same weights. The result is a run like any other.",
    )
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="folders or names of runs, checkpoints or a sweep")
    add("--last", type=int, metavar="N", help="only the last N epochs of one run (default: all that it kept)")
    add("--folder", type=Path, help="folder of the averaged run (default: a new one in outputs/runs)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap average`; raises `UserError` for what cannot be averaged."""
    args = _parser().parse_args(argv)
    command = "easycap average " + " ".join(map(shown, argv))
    run = average(args.runs, last=args.last, folder=args.folder, command=command)
    averaged = run.result["average"]
    say(f"average of {len(averaged)} checkpoints: {', '.join(averaged)}")
    say(f"run: {shown(run.folder)}")
    say(f"score it: easycap evaluate {shown(run.folder)}")
    return 0
