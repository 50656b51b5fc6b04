"""`easycap table PAPER RUNS...`: a paper's published scores next to the runs of its rows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from easycap.errors import UserError
from easycap.registry import describe_choices
from easycap.report.published import EXPORTS, match_runs, read_paper, show
from easycap.runs.find import find_run, write_text
from easycap.runs.reading import runs_in
from easycap.utils.console import console
from easycap.utils.paths import experiments_dirs

_FILE = "published.yaml"


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap table`; raises `UserError` in one sentence for an unknown paper, row or run."""
    args = _parser().parse_args(argv)
    paper = read_paper(_paper_file(args.paper))
    given = [(name, run) for name, folder in args.row for run in runs_in([find_run(folder)])]
    its_rows = {run.resolve() for _, run in given}
    runs = [run for run in runs_in(map(find_run, args.runs)) if run.resolve() not in its_rows]
    rows, dropped = match_runs(paper, runs, given, split=args.split)
    for why in dropped:
        print(f"easycap: left out: {why}", file=sys.stderr)
    targets = {name: target for name in EXPORTS if (target := getattr(args, name)) is not None}
    if "-" not in targets.values():
        show(console(), paper, rows)
    for name, target in targets.items():
        write_text(target, EXPORTS[name](paper, rows))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="easycap table",
        description="Show a paper's published scores next to those of runs trained with its recipes.",
    )
    parser.add_argument(
        "paper", metavar="PAPER", help=f"experiments/PAPER/{_FILE}, or the path of such a file"
    )
    parser.add_argument(
        "runs", type=Path, nargs="*", metavar="RUN", help="folders or names of runs, or folders of runs"
    )
    parser.add_argument("--split", default="test", help="split of the runs, e.g. test@beam (default: test)")
    parser.add_argument(
        "--row",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "RUN"),
        help="assign a run to the row NAME if its command has no recipe of the paper; NAME@SPLIT if several splits "
        "have a row of that name",
    )
    for name in EXPORTS:
        parser.add_argument(f"--{name}", metavar="OUT", help=f"also write {name} (-: only to the terminal)")
    return parser


def _paper_file(paper: str) -> Path:
    path = Path(paper)
    if path.is_file():
        return path
    folders = experiments_dirs()
    for candidate in (path / _FILE, *(folder / paper / _FILE for folder in folders)):
        if candidate.is_file():
            return candidate
    papers = {found.parent.name for folder in folders for found in folder.glob(f"*/{_FILE}")}
    raise UserError(
        f"no published scores of {paper!r}; {describe_choices(paper, papers)}, or the path of a {_FILE}"
    )
