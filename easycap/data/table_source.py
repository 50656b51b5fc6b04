"""`data=tables`: captions in tables or texts below a folder, however a data set hands them out.

A known set is a YAML of this source: which files, which columns. What it should hold is in known_sets.yaml.
"""

from __future__ import annotations

from pathlib import Path

from easycap.data.assemble import finish, match
from easycap.data.data_splits import SPLITS, check_shares, hashed_splits
from easycap.data.image_index import ImageIndex
from easycap.data.issues import DataIssues, OnBadImage
from easycap.data.known_sets import incomplete
from easycap.data.table_records import ColumnSettings, Record, Records
from easycap.errors import UserError
from easycap.registry import register
from easycap.types import Dataset, Example
from easycap.utils.paths import expanded


@register("data", "tables")
def tables(
    pixels: bool,
    *,
    dataset: str,
    root: str,
    captions: str | None,
    train: str | None,
    val: str | None,
    test: str | None,
    sidecar: str | None,
    image_list: str | None,
    images: str | None,
    entries: str | None,
    image_column: str | None,
    caption_column: str | None,
    split_column: str | None,
    id_column: str | None,
    rejected_column: str | None,
    fields: list[str] | None,
    val_share: float,
    test_share: float,
    seed: int,
    on_bad_image: OnBadImage,
) -> Dataset:
    """Read tables below `root`: `captions` of all splits, or `train`, `val` and `test`; or a text beside each image.

    Files are named by patterns; of alternatives separated by | the first that finds a file counts, and {split} is
    train, val or test. Columns are named by name or path (`sentences[].raw`), and guessed where null. `sidecar` is the
    suffix of texts beside the images; `image_list` names the images of files that hold a caption a line. Images are
    looked for below `images`, or `root`. An entry whose `rejected_column` is true is left out.

    Where the data names no split, a hash of `seed` and id makes val and test; a missing val is taken from train so, and
    a missing test is val. Data without training images can be evaluated only. Raises `UserError` naming file and entry.
    """
    check_shares(val_share, test_share)
    folder = expanded(root)
    issues = DataIssues(on_bad_image, pixels=pixels)
    place = _place_of_images(folder, root, images, issues)
    columns = ColumnSettings(
        image_column, caption_column, split_column, id_column, rejected_column, fields, entries
    )
    records = Records(folder, columns, issues, ImageIndex(place) if pixels or sidecar else None)
    if sidecar is not None:
        records.read_sidecars(sidecar)
    else:
        records.read_tables({None: captions, "train": train, "val": val, "test": test}, image_list=image_list)
    found = records.all()
    _find_images(found, records.index, place, dataset, issues)
    splits, made = _splits(found, seed=seed, val_share=val_share, test_share=test_share)
    read = _dataset(dataset, splits, records, issues)
    return read._replace(notes=(*made, *records.notes(), *incomplete(dataset, (r.split for r in found))))


def _place_of_images(folder: Path, root: str, images: str | None, issues: DataIssues) -> Path:
    if not folder.is_dir():
        raise UserError(f"data.root={root} is not a folder")
    place = folder if images is None else folder / images
    if not place.is_dir() and issues.pixels:
        raise UserError(f"{place} is not a folder (data.images={images})")
    return place


def _dataset(name: str, splits: dict[str, list[Record]], records: Records, issues: DataIssues) -> Dataset:
    """Return the Dataset of records; that the data lacks a split is no issue."""
    examples: dict[str, list[Example]] = {}
    for split in SPLITS:
        same = next((one for one in examples if splits[one] is splits[split]), None)
        examples[split] = examples[same] if same else _matched(split, splits[split], records, issues)
    read = finish(name, examples, issues, file=records.root, why_empty="no image has this split")
    absent = {split for split, of in splits.items() if not of}
    return read._replace(issues=tuple(i for i in read.issues if i.id or i.split not in absent))


def _find_images(
    records: list[Record], index: ImageIndex | None, place: Path, dataset: str, issues: DataIssues
) -> None:
    """Set the file of every record; `UserError` if files are missing and may not."""
    if index is None or not issues.pixels:
        for record in records:
            record.file = place / record.name
        return
    tables: dict[tuple[str, str | None], list[Record]] = {}
    for record in records:
        tables.setdefault((record.folder, record.split), []).append(record)
    missing: list[Record] = []
    for (folder, split), of in tables.items():
        there = index.find((record.name for record in of), folder, split)
        for record in of:
            record.file = there.get(record.name, place / record.name)
        missing += [record for record in of if record.name not in there]
    if missing and issues.on_bad_image is OnBadImage.error:
        one = missing[0]
        have = len(records) - len(missing)
        raise UserError(
            f"{place} has {have:,} of the {len(records):,} images of {dataset}: {one.where} names {one.name!r}, which "
            f"is not there{index.suggestion(one.name)}: complete the download, or use what there is with "
            "data.on_bad_image=skip; `easycap data check` lists all that is missing"
        )


def _splits(
    records: list[Record], *, seed: int, val_share: float, test_share: float
) -> tuple[dict[str, list[Record]], list[str]]:
    """Return the records of each split, and in words what was made up for splits that the data does not have."""
    splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for record in records:
        splits[record.split or "train"].append(record)
    notes = []
    shares = {"val_share": 0.0, "test_share": 0.0}
    if splits["train"] and not splits["val"]:
        shares["val_share"] = val_share
        shares["test_share"] = 0.0 if splits["test"] else test_share
        split_of = hashed_splits([record.id for record in splits["train"]], seed=seed, **shares)
        training, splits["train"] = splits["train"], []
        for record in training:
            splits[split_of[record.id]].append(record)
        taken = " and ".join(split for split in ("val", "test") if shares[f"{split}_share"])
        notes.append(
            f"the data has no split {taken}: taken from train by a hash of the ids (data.seed={seed})"
        )
    for split, other in (("test", "val"), ("val", "test")):
        if not splits[split] and splits[other]:
            splits[split] = splits[other]
            notes.append(f"the data has no split {split}: {other} is {split} too")
    if not splits["train"]:
        notes.append("the data has no training images: models can be evaluated on it, not trained")
    return splits, notes


def _matched(split: str, records: list[Record], source: Records, issues: DataIssues) -> list[Example]:
    kept = [record for record in records if record.texts or not (record.rejected or record.unreadable)]
    fields = source.fields_of(kept)
    captions = ((record.id, text) for record in kept for text in record.texts)
    files = ((record.id, record.file) for record in kept)
    return match(split, files, captions, issues, file=source.file_of(split), fields=fields)
