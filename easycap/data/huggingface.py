"""`data=huggingface`: a data set on the Hugging Face hub, or a folder that the library datasets reads."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from easycap.data.arrow_images import ArrowImage
from easycap.data.arrow_rows import Row
from easycap.data.assemble import finish, has_words, one_line
from easycap.data.data_splits import SPLITS, check_shares, hashed_splits
from easycap.data.hub_columns import columns_of
from easycap.data.hub_sets import StoredSet, StreamedSet
from easycap.data.issues import DataIssues, OnBadImage
from easycap.data.parquet_images import ParquetImage
from easycap.data.table_columns import SPLIT_NAMES
from easycap.errors import UserError
from easycap.registry import describe_choices, register
from easycap.types import Dataset, Example
from easycap.utils.paths import expanded


@register("data", "huggingface")
def huggingface(
    pixels: bool,
    *,
    path: str,
    config: str | None,
    revision: str | None,
    train: str | None,
    val: str | None,
    test: str | None,
    image_column: str | None,
    caption_column: str | None,
    id_column: str | None,
    val_share: float,
    test_share: float,
    seed: int,
    streaming: bool,
    on_bad_image: OnBadImage,
) -> Dataset:
    """Read the set `path`, a name on the hub or a folder: of `save_to_disk`, of Parquet files, or an ImageFolder.

    Rows with the same image (the same content, or the same file of an ImageFolder) are one image with the captions of
    all of them. An image's id is its file's name, where each name stands for one image and each image has one name;
    else 16 hex digits of its content. With `id_column` it is the value there. The splits `train`, `val` and `test` are
    by default those with usual names. Where val or test is missing, a hash of `seed` and id takes about `val_share` or
    `test_share` of the training images for it. Columns that are null are guessed. With `streaming` the images of
    Parquet files are read whenever they are needed, and only captions and names before; rows are one image only where
    `id_column` says so. Raises `UserError` for whatever cannot be read so.
    """
    check_shares(val_share, test_share)
    open_set = StreamedSet if streaming else StoredSet
    found = open_set(path, config, revision)
    names = split_names(found.splits, {"train": train, "val": val, "test": test})
    columns = columns_of(
        found.features,
        found.first_entries(),
        path,
        image=image_column,
        caption=caption_column,
        id_column=id_column,
    )
    issues = DataIssues(on_bad_image, pixels=pixels)
    root = expanded(path)
    rows = {split: list(found.rows(name, columns)) for split, name in names.items()}
    ids = image_ids(row for its in rows.values() for row in its) if columns.id is None else None
    splits = {s: _examples(s, its, ids, issues) for s, its in rows.items()}
    shares = {
        "val_share": 0 if "val" in names else val_share,
        "test_share": 0 if "test" in names else test_share,
    }
    splits = with_missing_splits(splits, seed=seed, **shares)
    dataset = finish("huggingface", splits, issues, file=root, why_empty=_why_empty(names, found.splits))
    return dataset._replace(fingerprint=fingerprint(dataset))


def split_names(found: Iterable[str], chosen: dict[str, str | None]) -> dict[str, str]:
    """Return {split of ours: split of the set}: those `chosen`, else those with usual names.

    Raises `UserError` for a chosen one that the set does not have, and for two that are called the same.
    """
    found = list(found)
    names: dict[str, str] = {}
    for split, name in chosen.items():
        if name is not None:
            if name not in found:
                raise UserError(
                    f"data.{split}={name} is not a split of the set; {describe_choices(name, found)}"
                )
            names[split] = name
    for name in found:
        usual = SPLIT_NAMES.get(name.lower())
        if usual is None or chosen.get(usual) is not None or name in names.values():
            continue
        if usual in names:
            both = f"{names[usual]} and {name}"
            raise UserError(f"the splits {both} could both be {usual}: set data.{usual} to one")
        names[usual] = name
    return {split: names[split] for split in SPLITS if split in names}


def _why_empty(names: dict[str, str], found: Iterable[str]) -> str:
    if "train" in names:
        return "the set has too few images for a split by hash, or none in this split"
    there = ", ".join(found)
    return f"the set has the splits {there}; data.train=NAME takes one of them as training images"


def image_ids(rows: Iterable[Row]) -> dict[str, str]:
    """Return {key of an image: id}: its name if that is its own, else the key."""
    names: dict[str, set[str]] = defaultdict(set)
    keys: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        names[row.key].add(row.name)
        keys[row.name].add(row.key)
    ids = {}
    for key, its in names.items():
        name = next(iter(its))
        ids[key] = name if len(its) == 1 and name and len(keys[name]) == 1 else key
    return ids


def _examples(
    split: str, rows: Sequence[Row], ids: dict[str, str] | None, issues: DataIssues
) -> list[Example]:
    """Examples of a split's rows, one for each image, in the order of their first rows."""
    first: dict[str, Row] = {}
    captions: dict[str, list[Any]] = defaultdict(list)
    faulty: set[str] = set()
    for row in rows:
        image_id = row.name if ids is None else ids[row.key]
        if not image_id:
            issues.drop(
                split, f"row {row.number}", row.file, f"has no id in row {row.number} (data.id_column)"
            )
        elif row.image is None:
            issues.drop(split, image_id, row.file, f"has no image in row {row.number}")
        elif first.setdefault(image_id, row).key != row.key:
            issues.drop(split, image_id, row.file, f"has this id for another image in row {row.number}")
        else:
            if row.fault:
                issues.malformed(f"{row.file}, row {row.number}", row.fault)
                faulty.add(image_id)
            captions[image_id] += row.captions
    examples = []
    for image_id, texts in captions.items():
        row = first[image_id]
        cleaned = [one_line(split, image_id, text, issues, row.file) for text in texts]
        references = tuple(filter(None, cleaned))
        if not references:
            if image_id not in faulty:
                issues.drop(split, image_id, row.file, f"has no caption in row {row.number}")
        elif not has_words(references):
            issues.drop(
                split, image_id, row.file, f"has no caption that contains a word: {references[0][:40]!r}"
            )
        else:
            assert row.image is not None
            examples.append(Example(image_id, row.image, references, fields=row.fields))
    return examples


def with_missing_splits(
    splits: dict[str, list[Example]], *, seed: int, val_share: float, test_share: float
) -> dict[str, list[Example]]:
    """Return train, val and test; those whose share is not 0 are made of training images, by a hash of their ids."""
    train = splits.get("train", [])
    hashed = hashed_splits([one.id for one in train], seed=seed, val_share=val_share, test_share=test_share)
    made: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for one in train:
        made[hashed[one.id]].append(one)
    return {split: splits[split] if split in splits and split != "train" else made[split] for split in SPLITS}


def fingerprint(dataset: Dataset) -> str:
    """Return 16 hex digits of all images and captions, in order; of an image file its id and size count, of a streamed
    image its place and the size of its row group.
    """
    digest = hashlib.blake2b(digest_size=8)
    for split, examples in dataset.splits.items():
        for one in examples:
            known = (split, one.id, _content(one.image), one.references)
            digest.update(repr(known).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _content(image: Any) -> object:
    """What tells the content of an image from another, on any machine."""
    if isinstance(image, ArrowImage):
        return image.digest
    if isinstance(image, ParquetImage):
        return image.path.name, image.group, image.row, image.rows, image.group_bytes()
    return image.path.stat().st_size if image.path.is_file() else None
