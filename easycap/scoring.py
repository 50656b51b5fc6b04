"""`easycap score captions.json references.json`: the scores of any system's captions, without a model."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from easycap.metrics import DocumentFrequencies, Scores, caption_health, read_instances, score, score_several
from easycap.metrics.corpus import captions_by_id, normal_id, references_by_id
from easycap.metrics.health import normalized
from easycap.metrics.scoring import DEFAULT_SCORERS, TEXT_METRICS, metric_names
from easycap.metrics.several import several_by_id
from easycap.types import Scorer

# Bytes. Ordinary captions need five times their file's size in memory, captions of a million words thirty times.
# COCO's largest file of captions has 92 MB.
_LARGEST = 200_000_000

_EXAMPLES = """
examples:
  easycap score captions.json captions_val2014.json --split val2014 --json scores.json
  easycap score captions.json captions_val2014.json --metrics bleu,cider_d,meteor
  easycap score captions.json captions_val2014.json --instances instances_val2014.json
  easycap score samples.json captions_val2014.json --several

A caption without words scores 0 and is counted; a missing, unknown or doubled id is an
error that names it; a metric that cannot run is absent, with the reason. Only --clip
needs torch, only meteor and spice need Java.
"""


def main(argv: Sequence[str]) -> int:
    """Score two files and print a table; raises `ValueError` in one sentence for input that cannot be scored."""
    arguments = _parser().parse_args(argv)
    names = metric_names(arguments.metrics)
    if (arguments.clip is None) != (arguments.images is None):
        raise ValueError("--clip FOLDER (CLIP's weights) and --images FOLDER (the images) go together")
    if arguments.json:
        check_writable(arguments.json)
    rows = read_captions(arguments.captions)
    captions = several_by_id(rows) if arguments.several else captions_by_id(rows)
    scores = (score_several if arguments.several else score)(
        captions,
        read_references(arguments.references),
        scorers=[*names, *_further_scorers(arguments, captions)],
        annotations=read_instances(_existing(arguments.instances)) if arguments.instances else None,
        df=_document_frequencies(arguments.df) if arguments.df else None,
        split=arguments.split,
        partial=arguments.partial,
    )
    texts = list(chain.from_iterable(captions.values())) if arguments.several else list(captions.values())
    health = caption_health(texts, training=_known(arguments.training) if arguments.training else None)
    _print(scores, health)
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
    add("references", type=Path, help="a COCO captions annotation file or {id: [reference, ...]}")
    add("--json", type=Path, metavar="OUT", help="also write scores, 0..1, and those of each image to OUT")
    add(
        "--metrics",
        default=",".join(DEFAULT_SCORERS),
        metavar="NAMES",
        help=f"some of {','.join(TEXT_METRICS)} (default: %(default)s)",
    )
    add("--partial", action="store_true", help="leave out images without a caption, and mark the scores")
    add("--split", metavar="NAME", help="the split's name, for the signatures")
    add(
        "--df",
        type=Path,
        metavar="FILE",
        help="document frequencies for CIDEr-D: training references, or .npz",
    )
    add("--training", type=Path, metavar="FILE", help="training references, to count novel captions")
    add(
        "--several",
        action="store_true",
        help="several captions per image (repeated ids, or {id: [caption, ...]}): mean scores, diversity",
    )
    add(
        "--instances",
        type=Path,
        metavar="FILE",
        help="COCO's instances_<split>.json: precision and recall of objects named, and CHAIR",
    )
    add("--clip", type=Path, metavar="FOLDER", help="weights of a CLIP on disk: CLIPScore and RefCLIPScore")
    add(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="the images for --clip, named by their ids as COCO's are",
    )
    add("--device", default="cpu", help="where CLIP runs (default: cpu)")
    return parser


def _further_scorers(arguments: argparse.Namespace, captions: Mapping[str, Any]) -> list[str | Scorer]:
    """The metrics that need more than text."""
    scorers: list[str | Scorer] = ["coco_objects"] if arguments.instances else []
    if arguments.clip:
        from easycap.data.images import images_by_id
        from easycap.metrics.clip_score import ClipScore

        images = images_by_id(arguments.images, captions.keys())
        scorers.append(ClipScore(model=arguments.clip, images=images, device=arguments.device))
    return scorers


def _document_frequencies(path: Path) -> DocumentFrequencies:
    if path.suffix == ".npz":
        return DocumentFrequencies.load(_existing(path))
    return DocumentFrequencies.from_references(
        references_by_id(read_references(path)).values(), source=path.stem
    )


def _known(path: Path) -> set[str]:
    return normalized(chain.from_iterable(references_by_id(read_references(path)).values()))


def read_captions(path: Path) -> list[dict[str, Any]] | dict[str, Any]:
    """Return the rows of a COCO results file, or {id: caption}; raises `ValueError` for another file."""
    content = read_file(path)
    if not isinstance(content, list | dict):
        raise ValueError(
            f"{str(path)!r} holds no captions; it must be a COCO results list or {{id: caption}}"
        )
    return content


def read_references(path: Path) -> dict[str, list[Any]]:
    """Return {id: references} of a COCO annotation file or such a JSON; raises `ValueError` for another file."""
    content = read_file(path)
    if not isinstance(content, dict):
        raise ValueError(
            f"{str(path)!r} holds no references; it must be a COCO annotation file or {{id: [reference, ...]}}"
        )
    rows = content.get("annotations")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return content
    references: dict[str, list[Any]] = {}
    for number, row in enumerate(rows):
        if not {"image_id", "caption"} <= row.keys():
            raise ValueError(
                f"annotation {number} of {str(path)!r} has no image_id or no caption: {str(row)[:80]}"
            )
        references.setdefault(normal_id(row["image_id"]), []).append(row["caption"])
    return references


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is no file; check the path")
    return path


def read_file(path: Path) -> Any:
    """Return the content of a JSON file; raises `ValueError` saying what is wrong with it, also a repeated key."""
    try:
        size = _existing(path).stat().st_size
        if size > _LARGEST:
            raise ValueError(
                f"it has {size / 1e6:,.0f} MB, and up to {_LARGEST / 1e6:,.0f} MB are read: is it a file of captions? "
                "else score it in parts"
            )
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file, object_pairs_hook=_unique)
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise ValueError(f"{str(path)!r} is nested too deeply to be captions or references") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{str(path)!r} is not JSON or was cut off: line {error.lineno}, {error.msg}"
        ) from None
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} comes twice; keep one")
    return found


def _print(scores: Scores, health: Mapping[str, float]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from easycap.report.numbers import interval_text, is_count, metric_order, number_text, score_text

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("metric", "score", "95 % interval"):
        table.add_column(column, justify="left" if column == "metric" else "right", no_wrap=True)
    plain = scores.to_dict()
    for name in metric_order(scores):
        table.add_row(name, score_text(plain[name]["value"], name), interval_text(plain[name], name))
    table.add_section()
    for name, value in health.items():
        text = number_text(value) if is_count(name) else score_text(value, name)
        table.add_row(name.replace("_", " "), text, "")
    console = Console()
    console.print(table)
    for line in (_SCALE, *(one.signature for one in scores.values()), *_remarks(scores)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


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
    write_file(path, content)


def check_writable(path: Path) -> None:
    """Raise `ValueError` if `path` cannot be written, so that it is known before the work and not after it."""
    probe = _partial(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "it is a folder")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be written: {error.strerror or error}") from None


def write_file(path: Path, content: Any) -> None:
    """Write JSON so that readers see the old file or the new one; raises `ValueError` if it cannot be written."""
    partial = _partial(path)
    try:
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ValueError(f"{str(path)!r} cannot be written: {error.strerror or error}") from None


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")
