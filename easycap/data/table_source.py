"""`data=tables`: captions in tables or texts below a folder, however a data set hands them out.

A known set is a YAML of this source: which files, which columns. What it should hold is in known_sets.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from easycap.data.assemble import finish
from easycap.data.data_splits import SPLITS, with_missing
from easycap.data.example_table import ExampleTable, FilesBelow, fingerprint_of
from easycap.data.image_places import ImagePlaces
from easycap.data.issues import DataIssues, OnBadImage
from easycap.data.known_sets import incomplete
from easycap.data.record_matcher import RecordMatcher
from easycap.data.record_table import NO_SPLIT, RecordTable
from easycap.data.table_objects import table_objects
from easycap.data.table_records import Records
from easycap.data.table_settings import Ids, TableSettings
from easycap.errors import UserError
from easycap.registry import register
from easycap.types import Dataset
from easycap.utils.machine import no_garbage_collection
from easycap.utils.paths import expanded
from easycap.utils.string_column import StringColumn, first_rows
from easycap.utils.text import count_text


@register("data", "tables")
@no_garbage_collection()  # reading takes half the time
def tables(pixels: bool, with_tags: bool, *, settings: TableSettings, on_bad_image: OnBadImage) -> Dataset:
    """Read tables below `root`: `captions` of all splits, or `train`, `val` and `test`; or a text beside each image.

    Files are named by patterns; of alternatives separated by | the first that finds a file counts, and {split} is
    train, val or test. Columns are named by name or path (`sentences[].raw`), and guessed where null. `sidecar` is the
    suffix of texts beside the images; `image_list` names the images of files that hold a caption a line. Images are
    looked for below `images`, or `root`. An entry whose `rejected_column` is true is left out. `objects` are tags of
    the images of val and test, which captions are scored by too; `with_tags` training images have theirs.

    Where the data names no split, a hash of `seed` and id makes val and test; a missing val is taken from train so, and
    a missing test is val. Data without training images can be evaluated only. Raises `UserError` naming file and entry.
    """
    folder = expanded(settings.root)
    issues = DataIssues(on_bad_image, pixels=pixels)
    place = _place_of_images(folder, settings, issues)
    places = ImagePlaces(place) if pixels or settings.sidecar else None
    records = Records(folder, settings, issues, places)
    if settings.sidecar is not None:
        records.read_sidecars(settings.sidecar)
    else:
        records.read_tables()
    table = records.table()
    named = (None if split == NO_SPLIT else SPLITS[split] for split in table.split.tolist())
    whole = settings.dataset if settings.restval else ""
    notes = (*_rejected(table, settings.rejected_column), *incomplete(whole, named))
    paths, there = _find_images(table, places, place, settings.dataset, issues)
    if settings.id_column is None and settings.ids is Ids.as_is:
        table = _told_apart(table, paths)
    splits, made = _splits(table, settings, records.ranks(table))
    objects = table_objects(folder, settings, with_tags=with_tags)
    matcher = RecordMatcher(table, FilesBelow(place, paths), issues, objects)
    read = _dataset(settings.dataset, splits, matcher, there, records, issues)
    return read._replace(notes=(*made, *notes), fingerprint=_fingerprint(read))


def _place_of_images(folder: Path, settings: TableSettings, issues: DataIssues) -> Path:
    if not folder.is_dir():
        raise UserError(f"data.root={settings.root} is not a folder")
    images = None if settings.names_folders() else settings.images
    place = folder if images is None else folder / images
    if not place.is_dir() and issues.pixels:
        raise UserError(f"{place} is not a folder (data.images={images})")
    return place


def _fingerprint(dataset: Dataset) -> str:
    tables = {split: of for split, of in dataset.splits.items() if isinstance(of, ExampleTable)}
    return fingerprint_of(tables)


def _rejected(table: RecordTable, column: str | None) -> list[str]:
    """Describe what was left out on purpose."""
    captions, without = (
        int(table.rejected.sum()),
        int(((table.rejected > 0) & (np.diff(table.first) == 0)).sum()),
    )
    if not captions:
        return []
    lost = count_text(without, "image")
    return [f"{count_text(captions, 'caption')} left out, as {column!r} marks them, and with them {lost}"]


def _dataset(
    name: str,
    splits: Mapping[str, np.ndarray],
    matcher: RecordMatcher,
    there: np.ndarray,
    records: Records,
    issues: DataIssues,
) -> Dataset:
    """Return the Dataset of records, of which `there` (N,) have an image; a missing split is not an issue."""
    examples: dict[str, ExampleTable] = {}
    for split, rows in splits.items():
        same = next((one for one in examples if splits[one] is rows), None)
        named = [one for one in splits if splits[one] is rows]
        examples[split] = (
            examples[same] if same else matcher.match(split, rows, named, file=records.file_of(split))
        )
    read = finish(
        name,
        examples,
        issues,
        file=records.root,
        why_empty="no image has this split",
        scorers=("coco_objects",) if matcher.objects.scored else (),
        is_there=lambda table: there[table.rows],
    )
    absent = {split for split, rows in splits.items() if not len(rows)}
    return read._replace(issues=tuple(i for i in read.issues if i.id or i.split not in absent))


def _find_images(
    table: RecordTable, places: ImagePlaces | None, place: Path, dataset: str, issues: DataIssues
) -> tuple[StringColumn, np.ndarray]:
    """Return the path of each image below `place` (N,), and whether it is there (N,).

    `UserError` if files are missing and may not.
    """
    if places is None or not issues.pixels:
        return table.names, np.ones(len(table), bool)
    groups = table.folder * (len(SPLITS) + 1) + table.split
    paths, there = table.names, np.ones(len(table), bool)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        whole = len(rows) == len(table)
        split = int(table.split[rows[0]])
        found, of_them = places.find(
            table.names if whole else table.names.take(rows),
            table.folders[table.folder[rows[0]]],
            None if split == NO_SPLIT else SPLITS[split],
        )
        there[rows] = of_them
        paths = found if whole else paths.replaced(rows, found)
    missing = np.flatnonzero(~there)
    if len(missing) and issues.on_bad_image is OnBadImage.error:
        first, have = int(missing[0]), len(table) - len(missing)
        name = table.names[first]
        raise UserError(
            f"{place} has {have:,} of the {len(table):,} images of {dataset}: {table.where(first)} names {name!r}, "
            f"which is missing{places.suggestion(name)}: complete the download, or use the images that exist with "
            "data.on_bad_image=skip; `easycap data check` lists all missing files"
        )
    return paths, there


def _told_apart(table: RecordTable, paths: StringColumn) -> RecordTable:
    """The table whose ids are `paths` (N,) below the root, each one file's alone, if splits begin their names anew."""
    if (table.split == table.split[:1]).all():
        return table
    firsts = first_rows(table.ids, np.zeros(len(table), np.int64))
    same = np.flatnonzero(firsts != np.arange(len(table)))
    anew = any(paths[row] != paths[int(firsts[row])] for row in same.tolist())
    return replace(table, ids=paths) if anew else table


def _splits(
    table: RecordTable, settings: TableSettings, ranks: np.ndarray | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the records of each split, by their `ranks` (N,), and in words what was made up for missing splits."""
    numbers = np.where(table.split == NO_SPLIT, SPLITS.index("train"), table.split)
    splits = {split: np.flatnonzero(numbers == number) for number, split in enumerate(SPLITS)}
    if ranks is not None:
        splits = {split: rows[np.argsort(ranks[rows], kind="stable")] for split, rows in splits.items()}
    notes = []
    for split, other in settings.same_files().items():
        splits[split] = splits[other]
        notes.append(f"{split} is {other} too: data.{split} and data.{other} are the same")
    shares = {"val_share": settings.val_share, "test_share": settings.test_share}
    splits, made = with_missing(splits, table.ids, seed=settings.seed, **shares)
    return splits, [*notes, *made]
