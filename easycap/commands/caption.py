"""`easycap caption RUN files or folders...`: captions of any photos."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from easycap.commands.sidecars import Table, TextFiles
from easycap.config.data_locations import add_arguments, locations_from_args, split_locations
from easycap.config.own_dirs import use_config_dirs
from easycap.config.pretrained_names import split_captioner
from easycap.data.image_files import image_files
from easycap.data.image_inputs import as_examples
from easycap.errors import UserError
from easycap.runs.ensembles import is_model
from easycap.runs.find import find_run, shown
from easycap.tasks.predictor import BATCH_SIZE, Prediction, Predictor
from easycap.types import Example
from easycap.utils.console import say
from easycap.utils.progress_bar import Progress


def _picture_paths(files: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Where each file's picture of attention goes: OUT itself, or OUT/<name>.png if that is not a picture."""
    if out.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"):
        if len(files) > 1:
            raise UserError(f"--attention {out} is one picture for {len(files)} images: give a folder")
        return {files[0]: out}
    if out.suffix and not out.is_dir():
        raise UserError(f"--attention {out} is neither a picture (.png, .jpg, .jpeg, .webp) nor a folder")
    paths = {file: out / f"{file.stem}.png" for file in files}
    if len(set(paths.values())) < len(files):
        raise UserError(f"--attention {out}: two of the images have the same name; caption them one by one")
    return paths


def _draw(predictor: Predictor, example: Example, prediction: Prediction, target: Path) -> None:
    """Draw where the decoder looked for the last of an image's captions."""
    target.parent.mkdir(parents=True, exist_ok=True)
    predictor.draw_attention(example, prediction).save(target)
    say(f"attention: {shown(target)}", stderr=True)


def _print(file: Path, result: Prediction | UserError) -> None:
    if isinstance(result, UserError):
        say(f"easycap: {result}", stderr=True)
    elif len(result.lines) == 1:
        say(f"{file}: {result.lines[0]}")
    else:
        say("\n".join([f"{file}:", *result.lines]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="easycap caption", description="Caption image files or folders of images."
    )
    parser.add_argument("run", type=Path, help="a run's folder or name, USER/MODEL on the hub, or hf:NAME")
    parser.add_argument("images", type=Path, nargs="+", help="image files or folders")
    parser.add_argument(
        "--ensemble",
        action="store_true",
        help="average the probabilities of several runs or of a sweep's runs: RUN RUN --ensemble IMAGE",
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON list of {file, caption} or {file, error}"
    )
    parser.add_argument(
        "--decoding", help="decoding method instead of the run's, e.g. beam or beam,num_beams=3"
    )
    parser.add_argument("--config-dir", metavar="DIR", help="also take options of --decoding from DIR")
    parser.add_argument(
        "--attention",
        type=Path,
        metavar="OUT",
        help="draw the decoder's attention for each word: to OUT.png for one image, into a folder for several",
    )
    parser.add_argument(
        "--draft", metavar="TEXT", help="a draft of the caption to improve (for runs with drafts)"
    )
    parser.add_argument(
        "--tags", metavar="A,B", help="tags of the images, e.g. dog,bark (for runs with tags)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="R",
        help="feed the caption back as the draft R times and print every round (default: the run's refine.rounds)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=BATCH_SIZE, help=f"images per batch (default: {BATCH_SIZE})"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the hub")
    add_arguments(parser)
    files = parser.add_argument_group("captions in files; repeat the command to caption only what is missing")
    which = files.add_mutually_exclusive_group()
    which.add_argument("--txt", action="store_true", help="write NAME.txt next to each image")
    which.add_argument("--csv", type=Path, metavar="OUT", help="write a table with the columns file, caption")
    which.add_argument("--jsonl", type=Path, metavar="OUT", help="write one JSON object per line")
    files.add_argument(
        "--overwrite", action="store_true", help="caption all images again; a table is replaced"
    )
    files.add_argument("--dry-run", action="store_true", help="count the images and stop")
    return parser


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap caption`; the exit code is 1 if any file could not be captioned."""
    words, overrides = split_captioner(use_config_dirs(argv)[0])
    words, locations = split_locations(words)
    args = _parser().parse_intermixed_args(words)
    runs = _take_runs(args)
    if args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size} must be at least 1")
    sink = _sink(args)
    total, missing = _count(args, sink)
    if args.dry_run or not missing:
        had = f", {total - missing:,} of them have a caption" if sink else ""
        print(f"{total:,} images{had}: {missing:,} to caption")
        return 0
    drawings = _picture_paths(list(image_files(args.images)), args.attention) if args.attention else {}
    given = {name: vars(args)[name] for name in ("decoding", "draft", "rounds", "tags")}
    from easycap.predict import load  # loads torch, which --help and a dry run do not need

    captioner = load(
        runs,
        ensemble=args.ensemble,
        device=args.device,
        locations=locations | locations_from_args(args),
        revision=args.revision,
        overrides=overrides,
    )
    predictor = captioner.predictor(**given)
    for notice in predictor.notices:
        print(f"easycap: {notice}", file=sys.stderr)
    if drawings:
        predictor.check_attention()
    files = (file for file in image_files(args.images) if sink is None or not sink.has(file))
    rows, failed = [], False
    for example, result in _predictions(predictor, files, args.batch_size, missing, sink):
        file = Path(example.id)
        failed |= isinstance(result, UserError)
        if args.json:
            found = {"error": str(result)} if isinstance(result, UserError) else result.row
            rows.append({"file": str(file), **found})
        elif sink is None or isinstance(result, UserError):
            _print(file, result)
        if not isinstance(result, UserError):
            if file in drawings:
                _draw(predictor, example, result, drawings[file])
            if sink is not None:
                sink.write(file, result.text)
    if args.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    if sink is not None:
        where = "text files next to the images" if args.txt else shown(args.csv or args.jsonl)
        print(f"captions: {where}")
    return int(failed)


def _take_runs(args: argparse.Namespace) -> list[Path]:
    """Return the runs that caption; those of an ensemble are taken from the front of `args.images`."""
    runs = [args.run]
    while args.ensemble and args.images and is_model(find_run(args.images[0])):
        runs.append(args.images.pop(0))
    if not args.images:
        raise UserError(f"no images: give them after the runs {' '.join(map(shown, runs))}")
    return runs


def _sink(args: argparse.Namespace) -> TextFiles | Table | None:
    if not (args.txt or args.csv or args.jsonl):
        if args.overwrite:
            raise UserError("--overwrite needs --txt, --csv or --jsonl")
        return None
    if args.json:
        raise UserError("--json cannot be combined with --txt, --csv or --jsonl")
    if args.txt:
        return TextFiles(overwrite=args.overwrite)
    if args.csv:
        return Table(args.csv, "csv", overwrite=args.overwrite)
    return Table(args.jsonl, "jsonl", overwrite=args.overwrite)


def _count(args: argparse.Namespace, sink: TextFiles | Table | None) -> tuple[int, int]:
    """Return how many images there are, and how many of them have no caption yet."""
    total = missing = 0
    suffixes = dict[str, str]()  # of the images, by their paths without it
    for file in image_files(args.images):
        total += 1
        missing += sink is None or not sink.has(file)
        if args.txt:
            other = suffixes.setdefault(str(file.with_suffix("")), file.suffix)
            if other != file.suffix:
                raise UserError(
                    f"{file.with_suffix(other)} and {file.name} would share {file.stem}.txt; use --csv or --jsonl"
                )
    return total, missing


def _predictions(
    predictor: Predictor, files: Iterable[Path], batch_size: int, total: int, sink: TextFiles | Table | None
) -> Iterator[tuple[Example, Prediction | UserError]]:
    """Yield each image with its prediction, batch by batch, with progress."""
    from easycap.predict import chunks

    prepared = False
    with Progress(predictor.doing, total) as progress:
        for batch in chunks(as_examples(files), batch_size):
            if not prepared:
                predictor.prepare(batch, ahead=total)
                prepared = True
            yield from zip(batch, predictor(batch), strict=True)
            if sink is not None:
                sink.flush()
            progress.advance(len(batch))
