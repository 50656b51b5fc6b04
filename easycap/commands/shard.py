"""`easycap data shard`: write any data set as tar shards."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from easycap.errors import UserError
from easycap.runs.find import shown
from easycap.utils.progress_bar import Progress
from easycap.utils.text import count_text

_SIZE = re.compile(r"(\d+(?:\.\d+)?) *([kmgt]?)i?b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


def shard(argv: Sequence[str]) -> int:
    """Entry point of `easycap data shard`."""
    parser = argparse.ArgumentParser(
        prog="easycap data shard", usage="easycap data shard [options] OVERRIDE... FOLDER"
    )
    parser.add_argument(
        "words", nargs="+", metavar="OVERRIDE... FOLDER", help="the data, and a new folder for the shards"
    )
    parser.add_argument(
        "--images-per-shard",
        type=int,
        default=10_000,
        metavar="N",
        help="images per shard, at most (default: 10,000)",
    )
    parser.add_argument(
        "--shard-size", default="1GB", metavar="SIZE", help="start a new shard at this size (default: 1GB)"
    )
    parser.add_argument(
        "--shuffle",
        type=int,
        metavar="SEED",
        help="seed for shuffling the training images (default: not shuffled)",
    )
    args = parser.parse_intermixed_args(argv)
    *overrides, out = args.words
    if "=" in out:
        raise UserError(f"{out} is not a folder: the last argument is the new folder for the shards")
    if args.images_per_shard < 1:
        raise UserError(f"--images-per-shard {args.images_per_shard} must be at least 1")
    if args.shuffle is not None and args.shuffle < 0:
        raise UserError(f"--shuffle {args.shuffle} must not be negative")
    from easycap.commands.data import checked_config
    from easycap.data.issues import grouped
    from easycap.data.shards.shard_writer import ShardSizes, lost_fields, write_shards
    from easycap.tasks.datasets import build_dataset
    from easycap.utils.extras import check_extra

    sizes = ShardSizes(args.images_per_shard, _bytes(args.shard_size), args.shuffle)
    check_extra("webdataset", "data shard")
    dataset = build_dataset(checked_config(overrides), with_tags=True)
    for note in (*dataset.notes, *grouped(dataset.issues), *lost_fields(dataset)):
        print(f"note: {note}")
    total = sum(len(its) for its in {id(its): its for its in dataset.splits.values()}.values())
    with Progress("writing shards", total) as progress:
        written = write_shards(dataset, Path(out), sizes, advance=progress.reach)
    images: Counter[str] = Counter()
    for one in written:
        images[one.split] += one.images
    for split, count in images.items():
        its = [one for one in written if one.split == split]
        size = sum(one.bytes for one in its) / 1e6
        print(f"{split}: {count_text(count, 'image')} in {count_text(len(its), 'shard')}, {size:,.1f} MB")
    print(f"to read them: data=webdataset data.root={shown(Path(out))}")
    return 0


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if size < 1:
        raise UserError(f"--shard-size {text} is not a size: write 500MB or 1GB")
    return size
