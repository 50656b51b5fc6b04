"""Caption a split with a run's best weights, score the captions, and compare the scores with baselines.

With data overrides (data=nocaps data.root=DIR), another data set is captioned instead of the run's own, with the run's
vocabulary and preprocessing; the scores are stored in the run under the name of that set.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from easycap.config.data_locations import add_arguments, locations_from_args, split_locations
from easycap.config.other_set import OtherSetConfig, other_set_config, split_other_set
from easycap.config.own_dirs import use_config_dirs
from easycap.errors import UserError
from easycap.metrics.scoring import DEFAULT_SCORERS, metric_names, text_metrics
from easycap.registry import import_modules
from easycap.runs.find import checkpoint_of, find_run, shown
from easycap.runs.run_folder import RunFolder
from easycap.tasks.create import load_task
from easycap.tasks.other_sets import evaluation_set, load_other_set
from easycap.utils.console import console


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap evaluate`."""
    words, overrides = split_other_set(use_config_dirs(argv)[0])
    words, locations = split_locations(words)
    args = _parser().parse_args(words)
    import_modules(args.imports.split(",") if args.imports else ())
    locations |= locations_from_args(args)
    other = _other_set(overrides, locations, args.name)
    names = metric_names(args.metrics) if args.metrics else ()
    if args.samples is not None and args.samples < 2:
        raise UserError(f"--samples {args.samples} must be at least 2")
    args.run = find_run(args.run)
    checkpoint = checkpoint_of(args.run)
    if not (args.run / "config.yaml").is_file():
        raise UserError(f"{args.run} is a checkpoint; give the run's folder that holds it")
    given = {
        "decoding": args.decoding,
        "samples": args.samples,
        "rounds": args.rounds,
        "metrics": names or None,
        "clip": args.clip,
    }
    options = {name: value for name, value in given.items() if value is not None}
    if args.clip and not args.clip.is_dir():
        raise UserError(f"--clip {args.clip} is not a folder; it must hold a CLIP saved by transformers")
    task = load_task(
        checkpoint,
        device=args.device,
        locations=locations if other is None else None,
        with_data=True,
        data_may_be_missing=other is not None,
    )
    other_set = None if other is None else load_other_set(task, other, locations)
    batch_size = task.config["validation"]["batch_size"] if args.batch_size is None else args.batch_size
    if batch_size < 1:
        raise UserError(f"--batch-size {batch_size} must be at least 1")
    command = "easycap evaluate " + " ".join(map(shown, argv))
    folder = RunFolder(args.run, command=command)
    images = evaluation_set(task, args.split, args.run, other=other_set, group_by=args.group_by)
    labels = task.evaluate(
        images,
        folder,
        batch_size=batch_size,
        command=command,
        choose_threads=True,
        **options,
    )
    return show_run(args.run, labels)


def _other_set(
    overrides: Sequence[str], locations: dict[str, str], name: str | None
) -> OtherSetConfig | None:
    """The set that overrides of data name, if any; then `locations` of data are those of that set."""
    if not overrides:
        if name is not None:
            raise UserError(
                f"--name {name} is for another set than the run's own: name it, e.g. data=coco data.root=DIR"
            )
        return None
    moved = [key for key in locations if key.startswith("data.")]
    return other_set_config([*overrides, *(f"{key}={locations.pop(key)}" for key in moved)], name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="easycap evaluate",
        usage="easycap evaluate RUN [data=NAME data.KEY=VALUE ...] [options]",
        description=__doc__,
    )
    add = parser.add_argument
    add("run", type=Path, help="a run's folder or name")
    add(
        "--split",
        help="split to caption and score; all: every image of another data set (default: test, else val)",
    )
    add("--name", help="name under which scores on another data set are stored (default: the set's name)")
    add("--decoding", help="decoding method instead of the run's, e.g. beam,num_beams=3 or sample,top_p=0.8")
    add(
        "--samples",
        type=int,
        metavar="K",
        help="sample K captions per image: mean scores, Div-1, Div-2, self-CIDEr",
    )
    add(
        "--rounds",
        type=int,
        metavar="R",
        help="feed captions back as drafts R times and score every round (default: the run's refine.rounds)",
    )
    add(
        "--group-by",
        metavar="FIELD",
        action="append",
        default=[],
        help="scores for each value of a column of the data, e.g. text_detected (repeat for more columns)",
    )
    usual = ",".join(DEFAULT_SCORERS)
    others = ",".join(name for name in text_metrics() if name not in DEFAULT_SCORERS)
    add("--metrics", metavar="NAMES", help=f"metrics in addition to {usual} and those of the data: {others}")
    add(
        "--imports",
        metavar="MODULES",
        help="modules of your own that register metrics or data, e.g. my_parts",
    )
    add("--config-dir", metavar="DIR", help="also take options from DIR, e.g. for data=NAME and --decoding")
    add("--clip", type=Path, metavar="FOLDER", help="local CLIP weights, for CLIPScore and RefCLIPScore")
    add("--batch-size", type=int, help="images per batch (default: the run's validation.batch_size)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add_arguments(parser)
    return parser


def show_run(run: Path, splits: Sequence[str] | None = None) -> int:
    """Print a run's scores, of all splits or of some, and write its report."""
    from easycap.report import scores_tables, write_report
    from easycap.report.evaluated_sets import set_lines
    from easycap.report.group_scores import group_tables
    from easycap.runs.reading import read_run

    out = console()
    result = read_run(run).result or {}
    labels = splits or list(result.get("scores", {}))
    for table in scores_tables(result, labels, width=out.width):
        out.print(table)
    for table in group_tables(result, labels, width=out.width):
        out.print(table)
    for line in set_lines(result, labels):
        out.print(line, soft_wrap=True, markup=False, highlight=False)
    out.print(f"report: {shown(write_report(run))}", soft_wrap=True)
    return 0
