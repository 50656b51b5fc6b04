"""The splits that tables name for their images: in a column, above the entries, in lists of images, or by folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from easycap.data.cells import values_at
from easycap.data.data_splits import SPLITS
from easycap.data.issues import DataIssues
from easycap.data.json_tables import Entry
from easycap.data.record_table import NO_SPLIT
from easycap.data.table_columns import SPLIT_NAMES, split_named
from easycap.data.table_settings import RESTVAL, TableSettings, matching
from easycap.data.text_files import read_text
from easycap.registry import describe_choices
from easycap.utils.string_column import StringColumn

NOT_READ = "not read"


class NamedSplits:
    """Finds the split of each entry of tables below `root`; problems go to `issues`."""

    def __init__(self, root: Path, settings: TableSettings, issues: DataIssues) -> None:
        self.root, self.settings, self.issues = root, settings, issues
        self.listed: dict[str, str] = {}  # {image: split} of the lists of each split, once they are read
        self._named: set[str] = set()  # those of them that a table names

    def read_lists(self) -> None:
        """Read the images of each split from the files of `split_list`; the first counts if an image is in two."""
        pattern = self.settings.split_list
        for split in SPLITS if pattern and not self.listed else ():
            setting = f"data.split_list={pattern}"
            for line in read_text(matching(self.root, str(pattern), split, setting=setting)[0]).split("\n"):
                if name := line.strip():
                    self.listed.setdefault(name, split)

    def of(self, entry: Entry, column: str | None, name: str) -> str | None:
        """Return the split of an entry of the image `name`, None if nothing says it.

        `NOT_READ` if the entry is not to be read, as it is not in a list, or names an unknown split.
        """
        if self.listed:
            self._named.add(name)
            return self.listed.get(name, NOT_READ)
        if column is None:
            return entry.split
        named = values_at(entry.values, column)
        word = str(named[0]).strip() if named else ""
        if word == RESTVAL and not self.settings.restval:
            return NOT_READ
        split = split_named(word) if named else entry.split
        if split is None:
            what = f"has the unknown split {named[0]!r}" if named else f"has no {column!r}"
            there = describe_choices(word, SPLIT_NAMES)
            self.issues.malformed(entry.where, f"{what} (data.split_column); {there}")
        return split or NOT_READ

    def listed_alone(self) -> dict[str, str]:
        """Return {image: split} of the images in lists that no table names."""
        return {name: split for name, split in self.listed.items() if name not in self._named}


def splits_of_folders(names: StringColumn) -> np.ndarray | None:
    """Return the splits (N,) that the first folders of all names are named after, if there are several."""
    splits = np.full(len(names), NO_SPLIT, np.int8)
    for row, name in enumerate(names):
        folder, slash, _ = name.partition("/")
        split = split_named(folder) if slash else None
        if split is None:
            return None
        splits[row] = SPLITS.index(split)
    return splits if len(np.unique(splits)) > 1 else None
