"""`easycap data get|check|show`: fetch data, find what is wrong with it, look at what a model gets of it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from easycap.paths import outputs_dir
from easycap.registry import describe_choices
from easycap.runs import shown

_HELP = """easycap data: fetch data, check it, look at it.

usage: easycap data get NAME ROOT [--dry-run]
           download, check and unpack; run again, it goes on or does nothing
       easycap data check [--json] OVERRIDES...
           read every image and caption, list all that is wrong (exit code 1 if there is)
       easycap data show [--split train] [--images 12] [--out FILE] OVERRIDES...
           a page: pictures after transforms, captions, word ids and these read back

OVERRIDES are those of train, e.g. data=coco data.root=ROOT, or data=folder data.images=DIR data.captions=FILE.
NAME is one of: {names}
"""


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap data`."""
    from easycap.data.downloads import COLLECTIONS, ON_REQUEST

    commands = {"get": _get, "check": _check, "show": _show}
    if not argv or argv[0] in ("-h", "--help"):
        print(_HELP.format(names=", ".join([*COLLECTIONS, *ON_REQUEST])))
        return 0
    if argv[0] not in commands:
        print(f"easycap: no data command {argv[0]!r}; {describe_choices(argv[0], commands)}", file=sys.stderr)
        return 2
    return commands[argv[0]](argv[1:])


def _get(argv: Sequence[str]) -> int:
    from easycap.data.downloads import COLLECTIONS, ON_REQUEST
    from easycap.data.get import get, missing, plan

    parser = argparse.ArgumentParser(prog="easycap data get")
    parser.add_argument("name")
    parser.add_argument("root", type=Path)
    parser.add_argument("--dry-run", action="store_true", help="say what would be fetched, and stop")
    args = parser.parse_args(argv)
    if args.name in ON_REQUEST:
        raise ValueError(ON_REQUEST[args.name].replace("ROOT", shown(args.root)))
    if args.name not in COLLECTIONS:
        raise ValueError(f"no data is called {args.name!r}; {describe_choices(args.name, COLLECTIONS)}")
    archives = missing(COLLECTIONS[args.name], args.root)
    if not archives:
        print(f"{args.name} is in {shown(args.root)} already")
        return 0
    print(plan(archives, args.root))
    if args.dry_run:
        return 0
    with _DownloadBars() as bars:
        get(archives, args.root, advance=bars.advance)
    print(f"{args.name} is in {shown(args.root)}")
    return 0


class _DownloadBars:
    """A bar per archive on a terminal, nothing elsewhere."""

    def __enter__(self) -> _DownloadBars:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description:<30}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self.tasks: dict[str, Any] = {}
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def advance(self, name: str, have: int, total: int) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name)
        self.progress.update(self.tasks[name], completed=have, total=total)


def _check(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="easycap data check")
    parser.add_argument("overrides", nargs="*", help="the data overrides of train")
    parser.add_argument("--json", action="store_true", help="print what is wrong as a JSON list")
    args = parser.parse_args(argv)
    from rich.console import Console

    from easycap.build import build_dataset
    from easycap.data.findings import OnBadImage

    config = _config(args.overrides)
    if "on_bad_image" in config["data"]:
        config["data"]["on_bad_image"] = OnBadImage.skip
    dataset = build_dataset(config)
    if args.json:
        print(json.dumps([finding._asdict() for finding in dataset.findings], indent=1, ensure_ascii=False))
    else:
        for table in _tables(dataset):
            Console().print(table)
    return int(any(finding.left_out for finding in dataset.findings) or not all(dataset.splits.values()))


def _tables(dataset) -> list:
    from rich.table import Table

    counts = Table(title=f"data={dataset.name}")
    for column in ("split", "images", "captions", "words per caption"):
        counts.add_column(column, justify="left" if column == "split" else "right")
    for split, examples in dataset.splits.items():
        captions = [caption for example in examples for caption in example.references]
        words = sum(len(caption.split()) for caption in captions) / max(1, len(captions))
        counts.add_row(split, f"{len(examples):,}", f"{len(captions):,}", f"{words:.1f}")
    if not dataset.findings:
        return [counts, "nothing is wrong"]
    left_out = sum(finding.left_out for finding in dataset.findings)
    title = f"{left_out} left out, {len(dataset.findings) - left_out} repaired"
    wrong = Table(title=title, show_lines=False)
    for column in ("split", "image", "file", "what"):
        wrong.add_column(column, overflow="fold")
    for finding in sorted(dataset.findings, key=lambda f: (not f.left_out, f.split, f.what, f.id)):
        wrong.add_row(finding.split, finding.id, shown(Path(finding.file)), finding.what)
    return [counts, wrong]


def _show(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="easycap data show")
    parser.add_argument("overrides", nargs="*", help="the overrides of train: data, vocab, encoder")
    parser.add_argument("--split", default="train")
    parser.add_argument(
        "--images", type=int, default=12, help="how many, from all over the split (default: 12)"
    )
    parser.add_argument("--out", type=Path, help="the page (default: data.html in outputs/)")
    args = parser.parse_args(argv)
    if args.images < 1:
        raise ValueError(f"--images {args.images} must be at least 1")
    from easycap.build import preprocessing_of
    from easycap.data.show import page
    from easycap.data.transforms import Transform
    from easycap.experiment import Experiment

    config = _config(args.overrides)
    experiment = Experiment(config)
    examples = experiment.examples(args.split)
    every = max(1, len(examples) // args.images)
    transform = Transform(preprocessing_of(config["encoder"]))
    title = f"{experiment.dataset.name}, {args.split}: {len(examples):,} images"
    out = args.out or outputs_dir() / "data.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    html = page(title, examples[::every][: args.images], transform, experiment.vocabulary)
    out.write_text(html, encoding="utf-8")
    print(f"page: {shown(out)}")
    return 0


def _config(overrides: Sequence[str]) -> dict[str, Any]:
    import easycap.build  # noqa: F401  fills the registry
    from easycap.config import check
    from easycap.launch import compose

    return check(compose(overrides)[0])
