"""Caption a split with a run's best weights, score the captions, and compare the scores with baselines.

With data overrides (data=nocaps data.root=DIR), another data set is captioned instead of the run's own, with the run's
vocabulary and preprocessing; the scores are stored in the run under the name of that set. With --ensemble, several runs
(or the runs of a sweep) caption together: each word is chosen by the mean of their probabilities. hf:NAME_OR_FOLDER is
a pretrained captioner of transformers, scored as it is in a run of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from easycap.api import evaluate
from easycap.config.data_locations import add_arguments, locations_from_args, split_locations
from easycap.config.other_set import split_other_set
from easycap.config.own_dirs import use_config_dirs
from easycap.config.pretrained_names import split_captioner
from easycap.metrics.scoring import DEFAULT_SCORERS, text_metrics
from easycap.registry import import_modules
from easycap.runs.ensembles import evaluation_folder
from easycap.runs.find import is_pretrained, shown
from easycap.utils.console import console


def main(argv: Sequence[str]) -> int:
    """Entry point of `easycap evaluate`."""
    words, overrides = split_other_set(use_config_dirs(argv)[0])
    words, captioner = split_captioner(words)
    words, locations = split_locations(words)
    args = _parser().parse_intermixed_args(words)
    import_modules(args.imports.split(",") if args.imports else ())
    folder = evaluation_folder(args.runs, ensemble=args.ensemble, folder=args.folder)
    scores = evaluate(
        args.runs,
        ensemble=args.ensemble,
        folder=folder if args.ensemble or is_pretrained(args.runs[0]) else None,
        split=args.split,
        data=overrides,
        name=args.name,
        decoding=args.decoding,
        samples=args.samples,
        rounds=args.rounds,
        metrics=args.metrics.split(",") if args.metrics else (),
        clip=args.clip,
        group_by=args.group_by,
        batch_size=args.batch_size,
        device=args.device,
        overrides=captioner,
        locations=locations | locations_from_args(args),
        command="easycap evaluate " + " ".join(map(shown, argv)),
    )
    return show_run(folder, list(scores))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="easycap evaluate",
        usage="easycap evaluate RUN [RUN ... --ensemble] [data=NAME data.KEY=VALUE ...] [options]\n"
        "       easycap evaluate hf:NAME_OR_FOLDER data=NAME [data.KEY=VALUE ...] [captioner.KEY=VALUE ...] [options]",
        description=__doc__,
    )
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="a run's folder or name, or hf:NAME")
    add(
        "--ensemble",
        action="store_true",
        help="average the probabilities of several runs or of a sweep's runs; the scores go to a run of their own",
    )
    add(
        "--folder",
        type=Path,
        help="folder of the run of an ensemble or of hf:NAME (default: a new one in outputs/runs)",
    )
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
