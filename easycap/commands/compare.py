"""Compare runs in a table and on a page, and two runs or files of captions image by image.

For any number of runs, sweeps or folders of them: the settings that differ, scores, cost, and a page that opens from
disk. For two runs, or two files with any systems' captions: whether the difference is significant, and on which images
they differ.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from easycap.commands.paired import Paired, read_paired
from easycap.errors import UserError
from easycap.report.comparison import (
    DIFFERENT,
    EXPORTS,
    Comparison,
    comparison_table,
    notes,
    read_comparison,
    set_table,
    set_tables,
    table_of,
    write_page,
)
from easycap.runs.find import find_run, shown, write_text
from easycap.runs.reading import find_runs, is_run
from easycap.utils.console import console
from easycap.utils.paths import outputs_dir
from easycap.utils.shell import joined

if TYPE_CHECKING:
    from rich.console import Console

_RANK_BY, _TOP = "CIDEr-D", 10
_MOST_DIFFERENCES = 4  # lines about a table; the page has all


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap compare`; raises `UserError` in one sentence for what cannot be compared."""
    args = _parser().parse_args(argv)
    if args.top is not None and args.top < 0:
        raise UserError(f"--top {args.top} must be at least 0")
    args.paths = [find_run(path) for path in args.paths]
    if len(args.paths) > 2:
        args.paths = _without_other_files(args.paths)
    in_pairs = len(args.paths) == 2 and all(map(_is_system, args.paths))
    asked = _asked_for_pairs(args)
    if not in_pairs:
        _refuse_files(args.paths)
        if asked:
            raise UserError(f"{asked} is for two systems: give two runs, or two files with captions")
    tabled = not in_pairs or all(map(is_run, args.paths))
    if tabled:
        _check_exported(args)
    pair, why_not = None, ""
    if in_pairs and (asked or not _to_stdout(args)):
        try:
            pair = _read_pair(args)  # before anything is printed: --by may be wrong
        except UserError as error:
            if asked or not tabled:
                raise
            why_not = f"Not compared in pairs: {error}"
    if tabled:
        _compare_runs(args, argv)
    if pair and args.json:
        write_text(str(args.json), pair.to_json())
    if not _to_stdout(args):
        if pair:
            pair.show()
        elif why_not:
            print(why_not)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="easycap compare", description=__doc__)
    parser.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="RUN|SWEEP",
        help="folders of runs or of sweeps; or exactly two COCO results files",
    )
    parser.add_argument("--split", default="test", help="which split of the runs (default: test)")
    table = parser.add_argument_group("the table and the page")
    table.add_argument(
        "--metrics", type=_names, metavar="A,B", help="which scores (default: CIDEr-D, truth, BLEU-4, ...)"
    )
    table.add_argument(
        "--html",
        type=Path,
        metavar="OUT",
        help="file for the page (default: compare.html in the folder given, or in outputs/ for several)",
    )
    for name in EXPORTS:
        table.add_argument(
            f"--{name}", metavar="OUT", help=f"also write the table as {name} (-: to the terminal)"
        )
    table.add_argument(
        "--columns",
        type=_names,
        metavar="A,B",
        help="columns of the exported table: settings, seed, scores, costs (default: all)",
    )
    table.add_argument(
        "--over-seeds",
        action="store_true",
        help="in the exported table, merge runs that differ only in the seed into one row: mean ± standard deviation",
    )
    pairs = parser.add_argument_group("two systems, image by image")
    pairs.add_argument(
        "--references", type=Path, help="for results files: COCO annotations or {id: [reference, ...]}"
    )
    pairs.add_argument(
        "--other-split", metavar="SPLIT", help="B's split if it has a different name, e.g. test@beam"
    )
    pairs.add_argument("--top", type=int, help=f"number of images to show (default: {_TOP})")
    pairs.add_argument(
        "--by",
        metavar="METRIC",
        help=f"metric by which the images are ranked (default: {_RANK_BY})",
    )
    pairs.add_argument(
        "--partial", action="store_true", help="ignore images that have references but no caption"
    )
    pairs.add_argument(
        "--segmenter",
        metavar="NAME",
        help="cuts the captions of two files into words: spaces (default), characters, jieba, fugashi",
    )
    pairs.add_argument("--json", type=Path, metavar="OUT", help="also write the comparison to OUT")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _is_system(path: Path) -> bool:
    """Whether `path` is one side of a pair: a file, or a run's folder."""
    return path.is_file() or is_run(path) or any(path.glob("captions.*.json"))


def _without_other_files(paths: Sequence[Path]) -> list[Path]:
    """Skip what is not a run in a sweep's folder (easycap compare sweep/*), and say so on stderr."""
    runs = [path for path in paths if path.is_dir() and any(find_runs(path))]
    parents = {run.parent for run in runs}
    others = [path for path in paths if path.exists() and path not in runs and path.parent in parents]
    if others:
        print(f"easycap: skipped, not runs: {', '.join(map(shown, others))}", file=sys.stderr)
    return [path for path in paths if path not in others]


def _refuse_files(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_file():
            raise UserError(
                f"{shown(path)} is a file: files with captions are compared two at a time, also with a run "
                "(easycap compare A B); to compare more, give folders of runs"
            )


def _asked_for_pairs(args: argparse.Namespace) -> str:
    """The first flag given that only means something for two systems, else nothing."""
    names = ("references", "other_split", "top", "by", "partial", "segmenter", "json")
    given = (name for name in names if getattr(args, name) not in (None, False))
    return next((f"--{name.replace('_', '-')}" for name in given), "")


def _to_stdout(args: argparse.Namespace) -> bool:
    return any(getattr(args, name) == "-" for name in EXPORTS)


def _read_pair(args: argparse.Namespace) -> Paired:
    return read_paired(
        *args.paths,
        split=args.split,
        other_split=args.other_split,
        given=args.references,
        partial=args.partial,
        by=args.by or _RANK_BY,
        top=_TOP if args.top is None else args.top,
        segmenter_name=args.segmenter,
    )


def _check_exported(args: argparse.Namespace) -> None:
    for name in ("html", *EXPORTS):
        target = getattr(args, name)
        if target is not None and Path(target).is_dir():
            raise UserError(f"--{name} {target} is a folder: name a file")
    chosen = "--columns" if args.columns else "--over-seeds" if args.over_seeds else ""
    if chosen and all(getattr(args, name) is None for name in EXPORTS):
        raise UserError(f"{chosen} needs one of --{', --'.join(EXPORTS)}, e.g. --latex -")


def _compare_runs(args: argparse.Namespace, argv: Sequence[str]) -> None:
    comparison = read_comparison(args.paths, split=args.split, metrics=args.metrics)
    exported = table_of(comparison, wanted=args.columns, over_seeds=args.over_seeds)
    page = args.html or _page_path(args.paths, comparison)
    if not _to_stdout(args):
        _show(comparison)
    command = joined(["easycap", "compare", *argv])
    write_page(comparison, page, title=_title(args.paths, comparison), command=command)
    for name, export in EXPORTS.items():
        if (target := getattr(args, name)) is not None:
            write_text(target, export(comparison, exported))
    where = sys.stderr if _to_stdout(args) else sys.stdout
    print(f"page: {shown(page)}", file=where)


def _show(comparison: Comparison) -> None:
    """Print the table with its notes, and what the terminal had no room for."""
    out = console()
    table, dropped = comparison_table(comparison, width=out.width)
    out.print(table)
    for line in notes(comparison):
        out.print(line, soft_wrap=True)
    if dropped:
        out.print(
            f"No room for {', '.join(dropped)}: they are on the page and in --csv, --latex, --markdown.",
            soft_wrap=True,
        )
    _show_sets(comparison, out)


def _show_sets(comparison: Comparison, out: Console) -> None:
    """Print the first metric on each other set and its groups; the page has all metrics."""
    shown_sets = set()
    for found in set_tables(comparison):
        if found.title in shown_sets:
            continue
        shown_sets.add(found.title)
        table, dropped = set_table(found, width=out.width)
        out.print(table)
        for line in found.differences[:_MOST_DIFFERENCES]:
            out.print(f"{DIFFERENT} {line}", soft_wrap=True)
        if dropped:
            out.print(f"No room for {', '.join(dropped)}: see the page.", soft_wrap=True)


def _page_path(paths: Sequence[Path], comparison: Comparison) -> Path:
    """Next to the runs where one folder holds them all, else in outputs/ under a name that these runs alone have."""
    if len(paths) == 1 and paths[0] not in list(find_runs(paths[0])):
        return paths[0] / "compare.html"
    folders = sorted(str(run.folder.resolve()) for run in comparison.runs)
    return outputs_dir() / f"compare-{hashlib.sha256(chr(10).join(folders).encode()).hexdigest()[:8]}.html"


def _title(paths: Sequence[Path], comparison: Comparison) -> str:
    if len(paths) == 1:
        return paths[0].resolve().name
    return f"{len(comparison.runs)} runs"
