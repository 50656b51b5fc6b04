"""The settings of `data=tables`, and the files and folders that they name for each split."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from easycap.data.data_splits import check_shares
from easycap.data.table_columns import SPLIT_NAMES
from easycap.errors import UserError
from easycap.registry import SharedSettings

PARTS = ("train", "val", "test")
NAME = "{name}"
RESTVAL = "restval"  # Karpathy's name for images of COCO's val that are not among the 10,000 of val and test


class Ids(Enum):
    """How the ids of images are made from `id_column`, or from names: as they are, without folders and suffix, or as
    the number that COCO's ids and file names are.
    """

    as_is = "as_is"
    stem = "stem"
    number = "number"


@dataclass(frozen=True)
class TableSettings(SharedSettings):
    """Files, columns and splits of `data=tables`; conf/data/tables.yaml says what each setting means."""

    dataset: str
    root: str
    captions: str | None
    train: str | None
    val: str | None
    test: str | None
    sidecar: str | None
    image_list: str | None
    split_list: str | None
    images: str | None
    objects: str | None
    train_objects: str | None
    entries: str | None
    image_column: str | None
    caption_column: str | None
    split_column: str | None
    id_column: str | None
    rejected_column: str | None
    fields: list[str] | None
    ids: Ids
    sort_by_id: bool
    restval: bool
    val_share: float
    test_share: float
    seed: int

    def __post_init__(self) -> None:
        check_shares(self.val_share, self.test_share)

    def patterns(self) -> dict[str | None, str]:
        """Return {split: pattern of its files}, None for files of all splits.

        A split with the same pattern as an earlier one is left out, see `same_files`.
        """
        return {
            split: pattern
            for split, pattern in file_patterns(vars(self)).items()
            if split not in self.same_files()
        }

    def same_files(self) -> dict[str, str]:
        """Return {split: an earlier one that the same files are named for}."""
        named = {split: vars(self)[split] for split in PARTS if vars(self)[split] is not None}
        first: dict[str, str] = {}
        return {split: first[name] for split, name in named.items() if first.setdefault(name, split) != split}

    def names_folders(self) -> bool:
        """Whether `images` is another folder for each split."""
        return self.images is not None and NAME in self.images

    def folder_of(self, split: str | None) -> str:
        """Return the folder that the images of a split are named below; "" if it is not said by split."""
        return self.of_split(self.images, split) if self.images and self.names_folders() else ""

    def of_split(self, pattern: str, split: str | None) -> str:
        """Return a pattern with the name that `train`, `val` or `test` give for {name}."""
        return pattern.replace(NAME, str(vars(self)[split]) if split else "")


def file_patterns(settings: Mapping[str, str | None]) -> dict[str | None, str]:
    """Return {split: pattern of its files} of settings, None for files of all splits."""
    captions = settings["captions"]
    parts = {split: pattern for split in PARTS if (pattern := settings[split]) is not None}
    if captions is not None and NAME in captions:
        return {split: captions.replace(NAME, name) for split, name in parts.items()}
    return ({None: captions} if captions is not None else {}) | parts


def matching(root: Path, pattern: str, split: str | None, *, setting: str) -> list[Path]:
    """Return the files below `root` that a pattern names, {split} by any usual name; `UserError` if there are none."""
    for alternative in pattern.split("|"):
        for name in _spelt(alternative.strip(), split):
            if (root / name).is_file():
                return [root / name]
            found = [
                Path(path) for path in glob.glob(str(Path(glob.escape(str(root))) / name), recursive=True)
            ]
            if files := sorted(path for path in found if path.is_file()):
                return files
    shown = pattern.replace("{split}", split or "")
    raise UserError(f"{root} has no file {shown} ({setting})")


def _spelt(pattern: str, split: str | None) -> list[str]:
    """A pattern with the names that a split has, its own first."""
    if "{split}" not in pattern:
        return [pattern]
    names = [split or "", *(name for name, meant in SPLIT_NAMES.items() if meant == split)]
    return [pattern.replace("{split}", name) for name in dict.fromkeys(names)]
