"""`easycap score captions.json references.json`: the scores of any system's captions, without a model."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from easycap.metrics import DocumentFrequencies, Scores, score
from easycap.metrics.corpus import normal_id
from easycap.metrics.scoring import DEFAULT_SCORERS


def main(argv: Sequence[str]) -> int:
    """Score two files and print a table; raises `ValueError` in one sentence for input that cannot be scored."""
    arguments = _parser().parse_args(argv)
    df = DocumentFrequencies.load(_existing(arguments.df)) if arguments.df else None
    scores = score(
        read_captions(arguments.captions),
        read_references(arguments.references),
        scorers=arguments.metrics,
        df=df,
        split=arguments.split,
        partial=arguments.partial,
    )
    _print(scores)
    if arguments.json:
        _write(arguments.json, scores)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="easycap score", description=__doc__)
    parser.add_argument(
        "captions", type=Path, help='[{"image_id": 1, "caption": "..."}, ...] or {id: caption}'
    )
    parser.add_argument(
        "references", type=Path, help="a COCO captions annotation file or {id: [reference, ...]}"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write scores, also per image, to OUT")
    parser.add_argument(
        "--partial", action="store_true", help="score images with a caption, leave out the others"
    )
    parser.add_argument(
        "--metrics",
        type=_names,
        default=DEFAULT_SCORERS,
        metavar="NAME,NAME",
        help=f"default: {','.join(DEFAULT_SCORERS)}",
    )
    parser.add_argument("--df", type=Path, metavar="FILE", help="document frequencies for CIDEr-D (.npz)")
    parser.add_argument("--split", help="the split's name, for the signatures")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


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
        with open(_existing(path), encoding="utf-8") as file:
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


def _print(scores: Scores) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "score", "95 % interval")
    for name, one in scores.items():
        interval = "" if one.low is None else f"{one.low:.4f} .. {one.high:.4f}"
        table.add_row(name, f"{one.value:.4f}", interval)
    console = Console()
    console.print(table)
    for one in scores.values():
        console.print(one.signature, markup=False, highlight=False, soft_wrap=True)
    for name, reason in scores.absent.items():
        console.print(f"{name} is absent: {reason}", markup=False)
    for name, count in scores.counts.items():
        if count and name != "images":
            console.print(
                f"{name.replace('_', ' ')}: {count} of {scores.counts['images']} images", markup=False
            )


def _write(path: Path, scores: Scores) -> None:
    content = {
        "scores": scores.to_dict(),
        "absent": dict(scores.absent),
        "counts": dict(scores.counts),
        "per_image": scores.per_image(),
    }
    write_file(path, content)


def write_file(path: Path, content: Any) -> None:
    """Write JSON so that readers see the old file or the new one; raises `ValueError` if it cannot be written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ValueError(f"{str(path)!r} cannot be written: {error.strerror or error}") from None
