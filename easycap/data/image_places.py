"""Find the images that tables name, first where the name says; folders are listed once, several at a time."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np

from easycap.data.image_files import SUFFIXES, is_hidden
from easycap.data.image_index import ImageIndex, split_words
from easycap.data.table_columns import SPLIT_NAMES
from easycap.utils.progress_bar import Progress
from easycap.utils.string_column import StringColumn

_NONE = -1
_LISTINGS = 8  # folders listed at a time: a network disk answers several requests as fast as one


class ImagePlaces:
    """Finds images below `root` as `ImageIndex` does; only for names that are not paths all images are listed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def index(self) -> ImageIndex:
        """All images below the root."""
        return ImageIndex(self.root)

    def knows(self, name: str, folder: str = "", split: str | None = None) -> bool:
        """Return whether a name means exactly one image."""
        paths = [_joined(each, _plain(name)) for each in _folders(folder, split)]
        direct = any(_may_be_image(path) and (self.root / path).is_file() for path in paths)
        return direct or self.index.knows(name, folder, split)

    def find(self, names: StringColumn, folder: str, split: str | None) -> tuple[StringColumn, np.ndarray]:
        """Return the path below the root of each name (N,), and whether there is one (N,); without one it is the name.

        `folder` and `split` are those of the table that has the names.
        """
        plain = names if _are_plain(names) else StringColumn.of(map(_plain, names))
        folders = _folders(folder, split)
        of = np.full(len(names), _NONE)  # the folder in which a name is a path
        with Progress("looking for images", len(names)) as progress:
            for number, each in enumerate(folders):
                left = np.flatnonzero(of == _NONE)
                whole = not each and len(left) == len(names)
                tried = plain if whole else [_joined(each, plain[row]) for row in left.tolist()]
                of[left[existing(self.root, tried, progress)]] = number
        others: dict[int, str] = {}
        if len(left := np.flatnonzero(of == _NONE)):
            known = self.index.find(names.at(left), folder, split)
            there = ((row, known.get(names[row])) for row in left.tolist())
            others = {row: path.relative_to(self.root).as_posix() for row, path in there if path is not None}
        if folders and (of == folders.index("")).all():
            return plain, np.ones(len(names), bool)
        paths = (
            others.get(row, names[row]) if number == _NONE else _joined(folders[number], plain[row])
            for row, number in enumerate(of.tolist())
        )
        found = of != _NONE
        found[list(others)] = True
        return StringColumn.of(paths), found

    def suggestion(self, name: str) -> str:
        """Return "; did you mean ...?" for a name that means no image, "" if none is similar."""
        return self.index.suggestion(name)


def existing(root: Path, paths: Sequence[str], progress: Progress) -> np.ndarray:
    """Return which of `paths` (N,) below `root` are images that are not hidden, and count them in `progress`.

    Each folder is listed once. Names are compared by 64 bits: one that is missing is overlooked in 1 of 10^12 cases in
    a folder of ten million, and then ends the run that reads it.
    """
    folders: dict[str, int] = {}
    folder, hashes = array("i"), array("q")
    for path in paths:
        parent, _, name = path.rpartition("/")
        folder.append(folders.setdefault(parent, len(folders)))
        hashes.append(hash(name))
    order = np.argsort(np.frombuffer(folder, np.int32), kind="stable")
    ends = np.cumsum(np.bincount(np.frombuffer(folder, np.int32), minlength=len(folders)))
    wanted = np.frombuffer(hashes, np.int64)
    there = np.zeros(len(wanted), bool)

    def look(parent: str, rows: np.ndarray) -> None:
        there[rows] = np.isin(wanted[rows], _hashed_names(root, parent))
        progress.advance(len(rows))

    with ThreadPoolExecutor(_LISTINGS) as pool:
        for _ in pool.map(look, folders, np.split(order, ends[:-1])):
            pass
    return there


def _hashed_names(root: Path, folder: str) -> np.ndarray:
    """The hashes of the names of a folder's images; none if it is hidden, or no folder."""
    if any(map(is_hidden, folder.split("/") if folder else ())):
        return np.empty(0, np.int64)
    try:
        with os.scandir(root / folder) as entries:
            return np.fromiter(map(hash, _image_names(entries)), np.int64)
    except (FileNotFoundError, NotADirectoryError):
        return np.empty(0, np.int64)


def _image_names(entries: Iterator[os.DirEntry[str]]) -> Iterator[str]:
    for entry in entries:
        name = entry.name
        if name[name.rfind(".") :].lower() in SUFFIXES and not is_hidden(name) and entry.is_file():
            yield name


def _may_be_image(path: str) -> bool:
    return path[path.rfind(".") :].lower() in SUFFIXES and not any(map(is_hidden, path.split("/")))


def _folders(folder: str, split: str | None) -> list[str]:
    """The folders below the root that names of a table are paths in: its own, the root, those called like the split.

    None where the table lies in a folder of another split: what is meant then depends on what other folders there are.
    """
    named = {SPLIT_NAMES[word.lower()] for word in split_words(folder)}
    if split is not None and named and split not in named:
        return []
    return list(dict.fromkeys((folder, "", *(each for each, meant in SPLIT_NAMES.items() if meant == split))))


def _plain(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./").lstrip("/")


def _are_plain(names: StringColumn) -> bool:
    """Whether `_plain` changes none of the names."""
    begins = names.ends[:-1][np.diff(names.ends) > 0]
    return not (ord("\\") in names.data or np.isin(names.data[begins], [ord("."), ord("/")]).any())


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
