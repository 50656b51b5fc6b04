"""`data=webdataset`: images and captions in tar shards, in folders or at addresses, never unpacked.

Each shard has an index: which bytes of it are which image, and all captions. So an image is read when it is needed, in
the sampler's order, which is the same for any number of loader processes and ranks, and can be resumed anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from easycap.data.assemble import finish
from easycap.data.data_splits import SPLITS, with_missing
from easycap.data.example_table import ExampleTable, fingerprint_of
from easycap.data.issues import DataIssues, OnBadImage
from easycap.data.record_matcher import RecordMatcher
from easycap.data.record_table import RecordTable
from easycap.data.shards.find_shards import find_shards
from easycap.data.shards.index_files import read_indexes, shards_at
from easycap.data.shards.shard_images import ShardImages
from easycap.data.shards.shard_samples import ShardSamples
from easycap.data.shards.shard_settings import ShardSettings
from easycap.data.table_objects import TableObjects
from easycap.registry import register
from easycap.types import Dataset
from easycap.utils.extras import check_extra
from easycap.utils.machine import no_garbage_collection
from easycap.utils.string_column import StringColumn, first_rows


@register("data", "webdataset")
@no_garbage_collection()
def webdataset(pixels: bool, *, settings: ShardSettings, on_bad_image: OnBadImage) -> Dataset:
    """Read the shards that `train`, `val` and `test` name below `root`, a folder or an address.

    A sample is the files of a tar with the same name up to the first dot. It has one image, `image_suffix` if there are
    several, and captions: in a text file, one a line, or in the field `caption_column` of a JSON object, guessed where
    null. Its id is what `id_column` of the JSON holds, by default `id`, else the sample's name.

    A missing val, and with it a missing test, is taken from train by a hash of `seed` and id; a missing test is val.
    Raises `UserError` for shards that cannot be read, naming shard and sample.
    """
    check_extra("webdataset", "data=webdataset")
    issues = DataIssues(on_bad_image, pixels=pixels)
    named = find_shards(settings.root, settings.patterns())
    found = {split: named[split] for split in dict.fromkeys([*SPLITS, *named]) if split in named}
    places = list(dict.fromkeys(place for its in found.values() for place in its))
    same, split_of = _splits_of(found)
    shards = shards_at(places, cache_bytes=int(settings.cache_gb * 1e9))
    samples = ShardSamples(shards, settings, issues)
    read_indexes(shards, lambda number, index: samples.add(number, split_of[places[number]], index))
    table, images = samples.table()
    if samples.ids_are_keys:
        table = _told_apart(table, images)
    splits = _rows_of_splits([split_of[place] for place in places], images, same)
    notes = [f"{split} is {other} too: their shards are the same" for split, other in same.items()]
    shares = {"val_share": settings.val_share, "test_share": settings.test_share}
    splits, made = with_missing(splits, table.ids, seed=settings.seed, **shares)
    tags = {table.ids[row]: {"objects": its} for row, its in samples.tags.items()}
    matcher = RecordMatcher(table, images, issues, TableObjects(tagged=tags))
    examples = _examples(splits, matcher, Path(settings.root))
    dataset = finish(
        "webdataset",
        examples,
        issues,
        file=Path(settings.root),
        why_empty="no shard has images of this split",
        is_there=lambda one: np.ones(len(one), bool),
    )
    absent = {split for split, rows in splits.items() if not len(rows)}
    return dataset._replace(
        issues=tuple(one for one in dataset.issues if one.id or one.split not in absent),
        notes=(*notes, *made),
        fingerprint=fingerprint_of(examples),
    )


def _splits_of(found: Mapping[str, list[str]]) -> tuple[dict[str, str], dict[str, str]]:
    """{split: an earlier one with the same shards}, and {shard: split}."""
    same: dict[str, str] = {}
    split_of: dict[str, str] = {}
    for split, its in found.items():
        earlier = next((one for one in found if one != split and one not in same and found[one] == its), None)
        if earlier is not None and earlier in split_of.values():
            same[split] = earlier
            continue
        for place in its:
            split_of.setdefault(place, split)
    return same, split_of


def _rows_of_splits(
    split_of: list[str], images: ShardImages, same: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """The images of each split, of which the shards have `split_of`."""
    rows = {}
    for split in dict.fromkeys([*SPLITS, *split_of]):
        its = np.array([one == split for one in split_of], bool)
        rows[split] = np.flatnonzero(its[images.shard])
    return rows | {split: rows[other] for split, other in same.items()}


def _told_apart(table: RecordTable, images: ShardImages) -> RecordTable:
    """The table, with ids prefixed by the shards' names if names of samples repeat across shards."""
    if (first_rows(table.ids, np.zeros(len(table), np.int64)) == np.arange(len(table))).all():
        return table
    names = [Path(shard.place.partition("?")[0]).name.removesuffix(".tar") for shard in images.shards]
    ids = (f"{names[shard]}/{key}" for shard, key in zip(images.shard.tolist(), table.ids, strict=True))
    return replace(table, ids=StringColumn.of(ids))


def _examples(
    splits: Mapping[str, np.ndarray], matcher: RecordMatcher, root: Path
) -> dict[str, ExampleTable]:
    """The examples of each split; splits of the same records share them."""
    examples: dict[str, ExampleTable] = {}
    for split, rows in splits.items():
        named = [one for one in splits if splits[one] is rows]
        examples[split] = (
            examples[named[0]] if named[0] in examples else matcher.match(split, rows, named, file=root)
        )
    return examples
