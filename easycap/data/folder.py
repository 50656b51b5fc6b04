"""`data=folder`: a user's own images, with captions in a table or in a text file per image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from easycap.data.assemble import finish, has_words, match
from easycap.data.data_splits import SPLITS, check_shares, hashed_split, hashed_splits
from easycap.data.image_files import image_files
from easycap.data.image_index import is_of_other_split
from easycap.data.images import ImageFile
from easycap.data.issues import DataIssues, OnBadImage
from easycap.data.table_columns import SPLIT_NAMES, TableColumns
from easycap.data.table_files import CaptionRow, column_rows, guess_from, table_entries, text_rows
from easycap.data.verify import bad_images
from easycap.errors import UserError
from easycap.registry import describe_choices, register
from easycap.types import Dataset, Example
from easycap.utils.ids import KnownIds
from easycap.utils.paths import expanded


@register("data", "folder")
def folder(
    pixels: bool,
    *,
    images: str,
    captions: str | None,
    image_column: str | None,
    caption_column: str | None,
    split_column: str | None,
    val_share: float,
    test_share: float,
    seed: int,
    on_bad_image: OnBadImage,
) -> Dataset:
    """Read all images in the folder `images` and below it, hidden ones aside; an id is the path within the folder.

    `captions` is a table in any format of `easycap.data.table_files`, or a folder with NAME.txt for each NAME.jpg, a
    caption a line; null: those are next to the images. Tables hold an image's id in `image_column`, in any spelling
    that means one image alone, and a caption or a list of them in `caption_column`; where these are null, they are
    guessed. An image may have several rows. `split_column` holds train, val or test; where it is null, a hash of
    `seed` and id gives about `val_share` and `test_share` of the images to those splits: an image stays where it is
    when others come or go. Raises `UserError` for whatever cannot be read so.
    """
    root = expanded(images)
    if not root.is_dir():
        raise UserError(f"data.images={images} is not a folder")
    check_shares(val_share, test_share)
    source = root if captions is None else expanded(captions)
    files = {path.relative_to(root).as_posix(): path for path in image_files([root])}
    issues = DataIssues(on_bad_image, pixels=pixels)
    known = KnownIds(files)
    rows, notes = _rows(source, known, (image_column, caption_column, split_column), issues)
    rows = _with_known_ids(rows, known, issues, source)
    if split_column is not None:
        split_of = _named_splits(rows, issues)
        why_empty = f"no row has this split in data.split_column={split_column}"
    else:
        usable = _usable(rows, files, issues)
        shares = {"val_share": val_share, "test_share": test_share}
        split_of = hashed_splits(usable, seed=seed, **shares)
        why_empty = f"splitting by hash needs at least 3 usable images, and there are {len(usable)}"
        for image_id in (*files, *(row.image for row in rows)):  # their issues are reported by split too
            split_of.setdefault(image_id, hashed_split(image_id, seed=seed, **shares))

    def hint(image_id: str) -> str:
        other = (root / image_id).is_file()
        return ": files with this suffix are not read as images" if other else known.suggestion(image_id)

    def of(split: str) -> list[Example]:
        images = ((name, path) for name, path in files.items() if split_of.get(name, "train") == split)
        captions = ((row.image, row.caption) for row in rows if split_of.get(row.image, "train") == split)
        return match(split, images, captions, issues, file=source, hint=hint)

    splits = {split: of(split) for split in SPLITS}
    return finish("folder", splits, issues, file=source, why_empty=why_empty)._replace(notes=notes)


def _rows(
    source: Path, known: KnownIds, columns: tuple[str | None, str | None, str | None], issues: DataIssues
) -> tuple[list[CaptionRow], tuple[str, ...]]:
    """The captions of a table, or of a folder of texts, and a note on a column of splits that is not read."""
    image, caption, split = columns
    if source.is_dir():
        if split is not None:
            raise UserError(f"data.split_column={split} needs a table; {source} is a folder of texts")
        return list(text_rows(source, sorted(known.known), issues)), ()
    if not source.is_file():
        raise UserError(f"data.captions={source} does not exist")
    wanted = dict(zip(("image_column", "caption_column", "split_column"), columns, strict=True))
    given = {setting: column for setting, column in wanted.items() if column}
    entries = table_entries(source, issues, wanted=given)
    notes: tuple[str, ...] = ()
    if image is None or caption is None:
        guess, entries = guess_from(
            entries,
            source,
            image=image,
            caption=caption,
            split=split,
            is_image=known.means_one,
            uses_split=split is not None,
        )
        image, caption = guess.image, guess.caption
        if guess.split != split:
            column = guess.split
            notes = (
                f"images are split by a hash of their paths; {source} names a split in column {column!r}, "
                f"which data.split_column={column} takes",
            )
    return list(column_rows(entries, TableColumns(image, caption, split), issues)), notes


def _with_known_ids(
    rows: list[CaptionRow], known: KnownIds, issues: DataIssues, source: Path
) -> list[CaptionRow]:
    """Rows with their image names replaced by the ids they match."""
    meant = {
        name: image_id
        for name, image_id in known.resolve(row.image for row in rows).items()
        if not is_of_other_split(image_id, name)
    }
    for name, image_id in meant.items():
        if name.removeprefix("./") != image_id:
            issues.fixed_alike(name, source, "has image names written differently from the files: matched")
    return [row._replace(image=meant.get(row.image, row.image)) for row in rows]


def _named_splits(rows: list[CaptionRow], issues: DataIssues) -> dict[str, str]:
    """{image: split} as stated in the rows; the first row of an image counts."""
    splits: dict[str, str] = {}
    for row in rows:
        name = (row.split or "").strip().lower()
        if name not in SPLIT_NAMES:
            issues.malformed(
                row.where, f"has the unknown split {row.split!r}; {describe_choices(name, SPLIT_NAMES)}"
            )
            continue
        split = SPLIT_NAMES[name]
        if splits.setdefault(row.image, split) != split:
            issues.malformed(row.where, f"puts image {row.image!r} in {splits[row.image]} and in {split}")
    return splits


def _usable(rows: list[CaptionRow], files: Mapping[str, Path], issues: DataIssues) -> list[str]:
    """Ids of images with a caption that can be scored; if there are few images, damaged ones are excluded too."""
    captions: dict[str, list] = {}
    for row in rows:
        if row.image in files:
            captions.setdefault(row.image, []).append(row.caption)
    usable = [image_id for image_id in files if image_id in captions and has_words(captions[image_id])]
    if issues.pixels and issues.on_bad_image is OnBadImage.skip and len(usable) < _FEW:
        bad = bad_images([ImageFile(files[image_id]) for image_id in usable])
        usable = [image_id for image_id in usable if ImageFile(files[image_id]) not in bad]
    return usable


_FEW = 1000  # with more images a hash leaves no split empty, unless its share is tiny
