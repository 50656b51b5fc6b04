"""`easycap runs`: list all runs."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from easycap.errors import UserError
from easycap.utils.console import console
from easycap.utils.paths import outputs_dir

_UNBOUNDED = 400  # characters of a line that is not written to a terminal


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap runs`."""
    parser = argparse.ArgumentParser(
        prog="easycap runs", description="List runs with their status and scores."
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=outputs_dir(), help="where to look (default: outputs/)"
    )
    parser.add_argument(
        "--sort",
        metavar="KEY",
        help="sort by a column, score or setting, e.g. CIDEr-D or trainer.epochs; --sort=-KEY: descending",
    )
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="list only matching runs; also !=, >, >=, <, <=; may be repeated: --filter data=coco "
        "--filter 'CIDEr-D>100' --filter 'time<1h' --filter 'run=*gpt2*'",
    )
    args = parser.parse_args(_with_descending_key(argv))
    from easycap.report import list_runs, runs_table
    from easycap.report.selection import filtered, ordered

    if not args.folder.is_dir():
        raise UserError(f"{args.folder} is not a folder")
    runs = list_runs(args.folder)
    if not runs:
        raise UserError(f"no runs below {args.folder}; `easycap train` makes one")
    chosen = ordered(filtered(runs, args.filter), args.sort)
    if not chosen:
        raise UserError(f"none of {len(runs)} runs matches {' and '.join(args.filter)}")
    # Output to a pipe or file is not truncated to a width.
    out = console(width=None if sys.stdout.isatty() else _UNBOUNDED)
    out.print(runs_table(chosen, width=out.width))
    return 0


def _with_descending_key(argv: Sequence[str]) -> list[str]:
    """Join "--sort -KEY" to "--sort=-KEY": argparse would take -KEY for an option."""
    words: list[str] = []
    for word in argv:
        descending = bool(words) and words[-1] == "--sort" and re.match("-[^-]", word)
        words[-1:] = [f"--sort={word}"] if descending else [*words[-1:], word]
    return words
