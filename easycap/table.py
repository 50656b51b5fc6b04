"""`easycap table PAPER RUNS...`: a paper's published scores, and runs beside the rows they stand for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from easycap.paths import experiments_dirs
from easycap.registry import describe_choices
from easycap.report.published import EXPORTS, beside, read_paper, show
from easycap.report.reading import find_runs
from easycap.runs import write_text

_FILE = "published.yaml"


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap table`; raises `ValueError` in one sentence for an unknown paper, row or run."""
    args = _parser().parse_args(argv)
    paper = read_paper(_paper_file(args.paper))
    given = [(name, run) for name, folder in args.row for run in _runs([Path(folder)])]
    its_rows = {run.resolve() for _, run in given}
    runs = [run for run in _runs(args.runs) if run.resolve() not in its_rows]
    rows, left_out = beside(paper, runs, given, split=args.split)
    for why in left_out:
        print(f"easycap: left out: {why}", file=sys.stderr)
    targets = {name: target for name in EXPORTS if (target := getattr(args, name)) is not None}
    if "-" not in targets.values():
        show(Console(), paper, rows)
    for name, target in targets.items():
        write_text(target, EXPORTS[name](paper, rows))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="easycap table",
        description="A paper's published scores, and beside them those of runs trained with its recipes.",
    )
    parser.add_argument(
        "paper", metavar="PAPER", help=f"experiments/PAPER/{_FILE}, or the path of such a file"
    )
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="folders of runs, or of many")
    parser.add_argument(
        "--split", default="test", help="which split of the runs, e.g. test@beam (default: test)"
    )
    parser.add_argument(
        "--row",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "RUN"),
        help="the row a run stands for, where its command names no recipe of it; NAME@SPLIT where several splits have "
        "a row of that name",
    )
    for name in EXPORTS:
        parser.add_argument(f"--{name}", metavar="OUT", help=f"also write {name} (-: to the terminal, alone)")
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
    raise ValueError(
        f"no published scores of {paper!r}; {describe_choices(paper, papers)}, or the path of a {_FILE}"
    )


def _runs(paths: Sequence[Path]) -> list[Path]:
    found: dict[Path, Path] = {}
    for path in paths:
        runs = list(find_runs(path)) if path.is_dir() else []
        if not runs:
            raise ValueError(f"there is no run in {path}; `easycap runs` lists the runs there are")
        found |= {run.resolve(): run for run in runs}
    return list(found.values())
