"""`easycap score captions.json references.json`: the scores of any system's captions, without a model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from easycap.errors import UserError
from easycap.metrics import DocumentFrequencies, Scores, caption_health, read_instances, score, score_samples
from easycap.metrics.caption_files import existing, read_captions, read_references
from easycap.metrics.corpus import captions_by_id, match_ids, references_by_id
from easycap.metrics.health import normalized
from easycap.metrics.multiple_samples import samples_by_id
from easycap.metrics.scoring import DEFAULT_SCORERS, metric_names, text_metrics
from easycap.metrics.unspaced import unspaced_scripts
from easycap.registry import import_modules
from easycap.runs.find import write_text
from easycap.types import Scorer
from easycap.utils.console import say
from easycap.utils.files import check_writable
from easycap.utils.segmenters import SPACES, Segmenter, segmenter

_EXAMPLES = """
examples:
  easycap score captions.json captions_val2014.json --split val2014 --json scores.json
  easycap score captions.json captions_val2014.json --metrics bleu,cider_d,meteor
  easycap score captions.json captions_val2014.json --instances instances_val2014.json
  easycap score samples.json captions_val2014.json --several

Captions without words score 0 and are reported; missing, unknown and duplicate ids are
errors; a metric that cannot run is reported as absent, with the reason. Only --clip needs
torch; only meteor and spice need Java.
"""


def main(argv: Sequence[str]) -> int:
    """Score two files and print a table; raises `UserError` in one sentence for input that cannot be scored."""
    arguments = _parser().parse_args(argv)
    import_modules(arguments.imports.split(",") if arguments.imports else ())
    names = metric_names(arguments.metrics)
    if (arguments.clip is None) != (arguments.images is None):
        raise UserError("--clip FOLDER (CLIP's weights) and --images FOLDER (the images) go together")
    if arguments.json and str(arguments.json) != "-":
        check_target(arguments.json)
    words = segmenter(arguments.segmenter)
    rows = read_captions(arguments.captions)
    references = references_by_id(read_references(arguments.references, split=arguments.split))
    settings: dict[str, Any] = {
        "annotations": read_instances(existing(arguments.instances)) if arguments.instances else None,
        "df": _document_frequencies(arguments.df, words) if arguments.df else None,
        "split": arguments.split,
        "partial": arguments.partial,
        "segmenter": words,
    }
    found: dict[str, Any] = samples_by_id(rows) if arguments.several else captions_by_id(rows)
    captions = match_ids(found, references)
    settings["scorers"] = [*names, *_further_scorers(arguments, captions)]
    if arguments.several:
        scores = score_samples(captions, references, **settings)
        texts = list(chain.from_iterable(captions.values()))
    else:
        scores = score(captions, references, **settings)
        texts = list(captions.values())
    notices = unspaced_scripts(map(words, chain.from_iterable(references.values())))
    health = caption_health(
        texts,
        training=_known(arguments.training, words) if arguments.training else None,
        segmenter=words,
    )
    if str(arguments.json) != "-":
        _print(scores, health, [f"note: {one}" for one in notices])
    if arguments.json:
        _write(arguments.json, scores, health)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="easycap score",
        description="Score any system's captions as the COCO evaluation does, with intervals and signatures.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("captions", type=Path, help='[{"image_id": 1, "caption": "..."}, ...] or {id: caption}')
    add("references", type=Path, help="a COCO caption annotation file, a Karpathy file, or {id: [...]}")
    add("--json", type=Path, metavar="OUT", help="write scores (0 to 1) to OUT too; -: print only these")
    _add_metrics(parser)
    add(
        "--partial",
        action="store_true",
        help="ignore images without a caption, and mark the scores as partial",
    )
    add(
        "--split",
        metavar="NAME",
        help="name of the split for the signatures; selects the images of a Karpathy file",
    )
    add(
        "--df",
        type=Path,
        metavar="FILE",
        help="document frequencies for CIDEr-D: training references, or .npz",
    )
    add(
        "--segmenter",
        default=SPACES.name,
        metavar="NAME",
        help="cuts captions into words: spaces (default), characters, jieba (Chinese), fugashi (Japanese)",
    )
    add("--training", type=Path, metavar="FILE", help="training references, to count novel captions")
    add(
        "--several",
        action="store_true",
        help="multiple captions per image (repeated ids, or {id: [caption, ...]}): mean scores, diversity",
    )
    add(
        "--instances",
        type=Path,
        metavar="FILE",
        help="COCO's instances_<split>.json: precision and recall of the objects mentioned, and CHAIR",
    )
    add("--clip", type=Path, metavar="FOLDER", help="local CLIP weights, for CLIPScore and RefCLIPScore")
    add(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="the images for --clip, with file names as in COCO",
    )
    add("--device", default="cpu", help="device for CLIP (default: cpu)")
    return parser


def _add_metrics(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metrics",
        default=",".join(DEFAULT_SCORERS),
        metavar="NAMES",
        help=f"comma-separated, from {','.join(text_metrics())} (default: %(default)s)",
    )
    parser.add_argument(
        "--imports", metavar="MODULES", help="modules of your own that register metrics, e.g. my_parts"
    )


def _further_scorers(arguments: argparse.Namespace, captions: Mapping[str, Any]) -> list[str | Scorer]:
    """The metrics that need more than text."""
    scorers: list[str | Scorer] = ["coco_objects"] if arguments.instances else []
    if arguments.clip:
        from easycap.data.image_files import images_by_id
        from easycap.metrics.clip_score import ClipScore

        images = images_by_id(arguments.images, captions.keys())
        scorers.append(ClipScore(model=arguments.clip, images=images, device=arguments.device))
    return scorers


def _document_frequencies(path: Path, words: Segmenter) -> DocumentFrequencies:
    if path.suffix == ".npz":
        return DocumentFrequencies.load(existing(path))
    return DocumentFrequencies.from_references(
        references_by_id(read_references(path, split="train")).values(), source=path.stem, segmenter=words
    )


def _known(path: Path, words: Segmenter) -> Mapping[str, int]:
    return normalized(
        chain.from_iterable(references_by_id(read_references(path, split="train")).values()), words
    )


def _print(scores: Scores, health: Mapping[str, float], notices: Sequence[str]) -> None:
    from easycap.utils.text import interval_text, is_count, metric_order, number_text, score_text

    plain = scores.to_dict()
    rows = [
        (name, score_text(plain[name]["value"], name), interval_text(plain[name], name))
        for name in metric_order(scores)
    ]
    checks = [
        (name.replace("_", " "), number_text(value) if is_count(name) else score_text(value, name), "")
        for name, value in health.items()
    ]
    for line in _table(("metric", "score", "95 % interval"), rows, checks):
        say(line)
    for line in (_SCALE, *(one.signature for one in scores.values()), *_remarks(scores), *notices):
        say(line)


def _table(header: Sequence[str], *sections: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose first column is aligned left; rich, which draws our other tables, may be absent here."""
    every = [header, *chain.from_iterable(sections)]
    widths = [max(len(row[column]) for row in every) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)),
        ]
        return f"  {'   '.join(cells)}".rstrip()

    lines = ["", line(header), " " + "─" * (sum(widths) + 3 * len(widths) - 1)]
    for section in sections:
        lines += [*map(line, section), ""]
    return lines


_SCALE = "Scores and shares are ×100: a CIDEr-D of 100.0 is 1.0 in --json OUT."


def _remarks(scores: Scores) -> list[str]:
    """What is absent, and what was odd about the captions."""
    lines = [f"{name} is absent: {reason}" for name, reason in scores.absent.items()]
    counts = scores.counts
    if counts["missing"]:
        lines.append(
            f"missing: {counts['missing']} images have no caption and were left out; {counts['images']} are scored"
        )
    if counts["empty_captions"]:
        lines.append(
            f"empty captions: {counts['empty_captions']} of {counts.get('captions', counts['images'])}; they score 0"
        )
    return lines


def _write(path: Path, scores: Scores, health: Mapping[str, float]) -> None:
    content = {
        "scores": scores.to_dict(),
        "absent": dict(scores.absent),
        "counts": dict(scores.counts),
        "diagnostics": dict(health),
        "per_image": scores.per_image(),
    }
    write_text(str(path), json.dumps(content, indent=1) + "\n")


def check_target(path: Path) -> None:
    """Raise `UserError` if `path` cannot be written, so that it is known before the work and not after it."""
    try:
        check_writable(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None
