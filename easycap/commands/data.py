"""`easycap data get|guess|list|check|show|shard`: fetch data, find how to read it, check, show and pack it."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easycap.commands.shard import shard
from easycap.errors import UserError
from easycap.registry import describe_choices
from easycap.runs.find import shown
from easycap.utils.console import console
from easycap.utils.paths import outputs_dir
from easycap.utils.progress_bar import Progress
from easycap.utils.segmenters import SPACES
from easycap.utils.shell import joined
from easycap.utils.text import count_text

if TYPE_CHECKING:
    from easycap.data.guess import Reading

_MB = 1_000_000
_HELP = """easycap data: download, find, check, show and pack data.

usage: easycap data get NAME ROOT [--dry-run]
           download, verify and unpack; repeat it to continue
       easycap data guess DIR
           print the overrides for reading a folder; to train on it (nothing is trained if this fails):
           args=$(easycap data guess DIR) && eval "easycap train $args"
       easycap data list [--json]
           list the known data sets: languages, sizes, where to get them, licence, citation
       easycap data check [--json] OVERRIDES...
           read every image and caption and list all problems (exit code 1 if there are any)
       easycap data show [--split train] [--images 12] [--out FILE] OVERRIDES...
           write a page with preprocessed images, their captions, token ids and the decoded ids
       easycap data shard [--images-per-shard 10000] [--shard-size 1GB] [--shuffle SEED] OVERRIDES... FOLDER
           write the data as tar shards for data=webdataset; repeat it to continue

OVERRIDES are as for easycap train, e.g. data=coco data.root=ROOT, or data=folder data.images=DIR data.captions=FILE;
--config-dir DIR also takes options from DIR.
NAME is one of: {names}
"""


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap data`."""
    from easycap.config.own_dirs import use_config_dirs
    from easycap.data.downloads import COLLECTIONS, ON_REQUEST

    argv, _ = use_config_dirs(argv)
    commands = {"get": _get, "guess": _guess, "list": _list, "check": _check, "show": _show, "shard": shard}
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
    from easycap.data.known_sets import known_sets

    parser = argparse.ArgumentParser(prog="easycap data get")
    parser.add_argument("name")
    parser.add_argument("root", type=Path)
    parser.add_argument("--dry-run", action="store_true", help="print what would be downloaded, and stop")
    args = parser.parse_args(argv)
    if args.name in ON_REQUEST:
        raise UserError(ON_REQUEST[args.name].replace("ROOT", shown(args.root)))
    if args.name not in COLLECTIONS:
        raise UserError(f"no data set is called {args.name!r}; {describe_choices(args.name, COLLECTIONS)}")
    archives = missing(COLLECTIONS[args.name], args.root)
    if not archives:
        print(f"{args.name} is in {shown(args.root)} already")
        return 0
    print(plan(archives, args.root))
    if (known := known_sets().get(args.name)) is not None:
        print(f"licence: {known.licence}; please cite {known.cite}")
    if args.dry_run:
        return 0
    size, have = sum(archive.size for archive in archives), dict.fromkeys((one.name for one in archives), 0)
    with Progress(f"fetching {args.name}", size // _MB, unit="MB") as progress:

        def advance(name: str, bytes_so_far: int, _: int) -> None:
            have[name] = bytes_so_far
            progress.reach(sum(have.values()) // _MB, name)

        get(archives, args.root, advance=advance)
    print(f"{args.name} is in {shown(args.root)}")
    return 0


def _guess(argv: Sequence[str]) -> int:
    from easycap.data.guess import readings

    parser = argparse.ArgumentParser(prog="easycap data guess")
    parser.add_argument("folder", type=Path, help="a folder of images and captions")
    folder = parser.parse_args(argv).folder
    found, reasons = readings(folder, _settings_of)
    for reason in reasons:
        print(f"not read: {reason}", file=sys.stderr)
    words = [_words(reading) for reading in found]
    if len(found) != 1:
        what = (
            f"{len(found)} ways to read {folder}; choose one" if found else f"no captions found in {folder}"
        )
        print(f"easycap: {what}", file=sys.stderr)
        for reading, text in zip(found, words, strict=True):
            print(f"  {text}\n      {reading.why}", file=sys.stderr)
        return 1
    print(f"{found[0].why}", file=sys.stderr)
    lines, segmenter = _what_is_there(shlex.split(words[0]))
    for line in lines:
        print(line, file=sys.stderr)
    print(*words, *segmenter)
    return 0


def _settings_of(option: str) -> dict[str, Any]:
    """Return the settings of an option of `data`; what has no value yet is a path."""
    from easycap.config.schema import option_from_text

    return option_from_text("data", f"{option},root=DIR")


def _words(reading: Reading) -> str:
    """Return a reading as overrides, quoted for the shell."""
    from easycap.config.overrides import PATHS, parse, quoted

    words = [f"data={reading.option}"]
    for setting, value in reading.settings.items():
        key, text = f"data.{setting}", "null" if value is None else value
        if value is not None and key not in PATHS and parse([f"{key}={text}"])[0].value() != value:
            text = quoted(value)
        words.append(f"{key}={text}")
    return joined(words)


def _what_is_there(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what reading the data finds, a line for each split, and the override of the segmenter if most captions
    have no spaces between words; `UserError` names what is missing.
    """
    from easycap.data.issues import grouped
    from easycap.metrics.unspaced import scripts_note, unspaced_scripts
    from easycap.tasks.datasets import build_dataset

    data = build_dataset(checked_config(overrides))
    lines = [
        f"{split}: {count_text(len(examples), 'image')}, "
        f"{count_text(sum(len(e.references) for e in examples), 'caption')}"
        for split, examples in data.splits.items()
    ]
    notes = [*data.notes, *grouped(data.issues)]
    captions = [text for examples in data.splits.values() for e in examples for text in e.references]
    unspaced = unspaced_scripts(captions)
    lines += [scripts_note(captions)] if unspaced else []
    # characters needs no package and fits every such script
    segmenter = ["vocab.segmenter=characters"] if sum(one.share for one in unspaced) > 0.5 else []
    return [*lines, *(f"note: {note}" for note in notes)], segmenter


def _list(argv: Sequence[str]) -> int:
    from easycap.data.known_sets import known_sets

    parser = argparse.ArgumentParser(prog="easycap data list")
    parser.add_argument("--json", action="store_true", help="print all that is known as JSON")
    args = parser.parse_args(argv)
    rows = {
        name: known._asdict() | {"reader": _settings_of(name)["name"]} for name, known in known_sets().items()
    }
    if args.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return 0
    for name, row in rows.items():
        unknown = "differs between copies" if row["cite"] else "any number"
        images = ", ".join(f"{split} {count:,}" for split, count in row["images"].items()) or unknown
        captions = f"; {row['captions']:,} captions" if row["captions"] else ""
        print(f"data={name}  ({' '.join(row['languages']) or 'any language'}; reader: {row['reader']})")
        print(f"    images: {images}{captions}\n    get: {row['get']}\n    licence: {row['licence']}")
        if row["cite"]:
            print(f"    cite: {row['cite']}")
    return 0


def _check(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="easycap data check")
    parser.add_argument(
        "overrides", nargs="*", help="data overrides as for `easycap train`, e.g. data=coco data.root=DIR"
    )
    parser.add_argument("--json", action="store_true", help="print the problems as a JSON list")
    args = parser.parse_args(argv)
    from easycap.config.instantiate import segmenter_of
    from easycap.data.issues import OnBadImage
    from easycap.tasks.datasets import build_dataset

    config = checked_config(args.overrides)
    if "on_bad_image" in config["data"]:
        config["data"]["on_bad_image"] = OnBadImage.skip
    dataset = build_dataset(config)
    if args.json:
        print(json.dumps([issue._asdict() for issue in dataset.issues], indent=1, ensure_ascii=False))
    else:
        for table in _tables(dataset, segmenter_of(config)):
            console().print(table)
    return int(any(issue.dropped for issue in dataset.issues))


def _tables(dataset, segmenter=SPACES) -> list:
    from rich.table import Table
    from rich.text import Text

    counts = Table(title=f"data={dataset.name}")
    for column in ("split", "images", "captions", "words per caption"):
        counts.add_column(column, justify="left" if column == "split" else "right")
    for split, examples in dataset.splits.items():
        captions = [caption for example in examples for caption in example.references]
        words = sum(len(segmenter(caption).split()) for caption in captions) / max(1, len(captions))
        counts.add_row(split, f"{len(examples):,}", f"{len(captions):,}", f"{words:.1f}")
    from easycap.metrics.unspaced import scripts_note, unspaced_scripts

    every = [text for examples in dataset.splits.values() for e in examples for text in e.references]
    further = (*unspaced_scripts(map(segmenter, every)), *dataset.notes)
    notices = [scripts_note(every), *(f"note: {one}" for one in further)]
    if not dataset.issues:
        return [counts, *notices, "nothing is wrong"]
    lost = [issue for issue in dataset.issues if issue.dropped]
    empty = sum(not examples for examples in dataset.splits.values())
    title = f"{len(lost) - empty} dropped, {len(dataset.issues) - len(lost)} fixed"
    title += f", {empty} without images" if empty else ""
    wrong = Table(title=title, show_lines=False)
    for column in ("split", "image", "file", "what"):
        wrong.add_column(column, overflow="fold")
    for issue in sorted(dataset.issues, key=lambda f: (not f.dropped, f.split, f.what, f.id)):
        # As text: names of files may have brackets, which are markup elsewhere.
        row = (issue.split, issue.id, _shown_place(issue.file), issue.what)
        wrong.add_row(*map(Text, row))
    return [counts, *notices, wrong]


def _shown_place(file: str) -> str:
    return file if "://" in file else shown(Path(file))


def _show(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="easycap data show")
    parser.add_argument("overrides", nargs="*", help="overrides as for `easycap train`: data, vocab, encoder")
    parser.add_argument("--split", default="train")
    parser.add_argument(
        "--images", type=int, default=12, help="number of images, spread over the split (default: 12)"
    )
    parser.add_argument("--out", type=Path, help="file for the page (default: data.html in outputs/)")
    args = parser.parse_args(argv)
    if args.images < 1:
        raise UserError(f"--images {args.images} must be at least 1")
    from easycap.data.show import page
    from easycap.data.transforms import Transform
    from easycap.models.build import preprocessing_of
    from easycap.tasks.captioning import CaptioningTask

    config = checked_config(args.overrides)
    data = CaptioningTask.read_data(config)
    vocabulary = CaptioningTask.build_vocabulary(config, data, None)
    if args.split not in data.splits:
        raise UserError(f"split {args.split!r} does not exist; allowed: {', '.join(data.splits)}")
    examples = data.splits[args.split]
    every = max(1, len(examples) // args.images)
    transform = Transform(preprocessing_of(config["encoder"]))
    title = f"{data.name}, {args.split}: {count_text(len(examples), 'image')}"
    out = args.out or outputs_dir() / "data.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    html = page(title, examples[::every][: args.images], transform, vocabulary)
    out.write_text(html, encoding="utf-8")
    print(f"page: {shown(out)}")
    return 0


def checked_config(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the checked config of overrides."""
    from easycap.config.compose import compose
    from easycap.config.schema import check

    return check(compose(overrides)[0])
