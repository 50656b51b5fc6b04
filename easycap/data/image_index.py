"""The images below a folder, found by the names that tables give them: a path, a name alone, without suffix."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import cached_property, lru_cache
from pathlib import Path

from easycap.data.image_files import files_below, is_image
from easycap.data.table_columns import SPLIT_NAMES
from easycap.utils.ids import KnownIds

_SPLIT_WORD = re.compile(rf"(?<![a-z])({'|'.join(SPLIT_NAMES)})(?![a-z])", re.IGNORECASE)
# COCO's numbers stand for one image in all of its folders: tables of other splits than COCO's own name them too.
_COCO_FOLDER = re.compile(r"(?:.*/)?(?:train|val|test)20\d\d")
_COCO_NAME = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})(?:\.\w+)?")

_Meaning = tuple[frozenset[str], bool]  # splits that an image may be of, and whether its name says so itself


class ImageIndex:
    """Finds images below `root` by name.

    A name is looked for as a path below a table's own folder, below `root` and below folders called like a split; then
    as a file name that only one image has; then in other spellings (`KnownIds`): without suffix, other case, a number.
    An image in a folder of another split is not the one that is meant: of train/2.png and val/2.png a table of val
    means the latter by 2.png, and neither if val/2.png is missing. That a folder such as train_images holds another
    split counts only if the split that is meant has a folder of its own: some sets keep the images of val there.
    `files` are paths below `root`, where they are known.
    """

    def __init__(self, root: Path, files: Iterable[str] | None = None) -> None:
        self.root = root
        every = files_below(root) if files is None else files
        self.images = [path for path in every if is_image(path)]
        self._there = frozenset(self.images)
        self._candidates: dict[_Meaning, _Candidates] = {}

    def knows(self, name: str, folder: str = "", split: str | None = None) -> bool:
        """Return whether a name means exactly one image."""
        return bool(self.find([name], folder, split))

    def find(self, names: Iterable[str], folder: str = "", split: str | None = None) -> dict[str, Path]:
        """Return {name: file} of the names that mean one image; `folder` and `split` are those of their table."""
        found: dict[str, str] = {}
        others: dict[_Meaning, list[str]] = defaultdict(list)
        for name in dict.fromkeys(names):
            meaning = _meaning(name, folder, split)
            if (path := self._exact(name, folder, split, meaning)) is not None:
                found[name] = path
            else:
                others[meaning].append(name)
        for meaning, group in others.items():
            found |= self._of(meaning).known.resolve(group)
        return {name: self.root / path for name, path in found.items()}

    def suggestion(self, name: str) -> str:
        """Return "; did you mean ...?" for a name that means no image, "" if none is similar."""
        return self._of((frozenset(), False)).known.suggestion(name)

    def _exact(self, name: str, folder: str, split: str | None, meaning: _Meaning) -> str | None:
        name = name.replace("\\", "/").removeprefix("./").lstrip("/")
        own = [each for each, meant in SPLIT_NAMES.items() if meant == split]
        for each in (folder, "", *own):
            path = f"{each}/{name}" if each else name
            if path in self._there and (each != folder or not self._is_of_other(path, meaning, table=True)):
                return path
        name, candidates = name.rpartition("/")[2], self._of(meaning)
        if name not in candidates.by_name and (coco := _COCO_NAME.fullmatch(name)):
            return candidates.by_coco_number.get(coco[1])
        return candidates.by_name.get(name)

    def _of(self, meaning: _Meaning) -> _Candidates:
        """The images that a name may mean."""
        if meaning not in self._candidates:
            self._candidates[meaning] = _Candidates(
                path for path in self.images if not self._is_of_other(path, meaning)
            )
        return self._candidates[meaning]

    def _is_of_other(self, path: str, meaning: _Meaning, *, table: bool = False) -> bool:
        """Whether an image is of another split than is meant; `table`: it lies beside the table that names it."""
        meant, by_name = meaning
        if not _are_of_others(path, meant):
            return False
        in_folder_of_split = not table and bool(_splits_of(path, whole=True))
        return by_name or in_folder_of_split or meant <= self._splits_of_folders

    @cached_property
    def _splits_of_folders(self) -> frozenset[str]:
        """The splits that folders of images are called by."""
        folders = {path.rpartition("/")[0] for path in self.images}
        return frozenset().union(*(_splits_of(f"{folder}/") for folder in folders))


class _Candidates:
    """Images among which a name is looked for."""

    def __init__(self, images: Iterable[str]) -> None:
        self.images = list(images)

    @cached_property
    def by_name(self) -> dict[str, str | None]:
        """{file name: path below root, or None if several images have it}."""
        found: dict[str, str | None] = {}
        for path in self.images:
            name = path.rpartition("/")[2]
            found[name] = None if name in found else path
        return found

    @cached_property
    def by_coco_number(self) -> dict[str, str | None]:
        """{number: path below root, or None if several images have it} of images called as COCO calls them."""
        found: dict[str, str | None] = {}
        for path in self.images:
            if coco := _COCO_NAME.fullmatch(path.rpartition("/")[2]):
                found[coco[1]] = None if coco[1] in found else path
        return found

    @cached_property
    def known(self) -> KnownIds:
        return KnownIds(self.images)


def is_of_other_split(path: str, name: str) -> bool:
    """Return whether folders of an image's `path` name another split than those in the `name` that a table gives it."""
    return _are_of_others(path, _splits_of(name.replace("\\", "/"), whole=True))


def split_words(text: str) -> list[str]:
    """Return the words of a text that name a split, as they are spelled there."""
    return _SPLIT_WORD.findall(text)


def with_split_words(text: str, replacement: str) -> str:
    """Return a text with the words that name a split replaced."""
    return _SPLIT_WORD.sub(replacement, text)


def _meaning(name: str, folder: str, split: str | None) -> _Meaning:
    """The folders in a name say which split is meant, else `split`, else the table's own `folder`."""
    name = name.replace("\\", "/")
    if named := _splits_of(name):
        return named, bool(_splits_of(name, whole=True))
    return frozenset({split}) if split else _splits_of(f"{folder}/"), False


def _are_of_others(path: str, meant: Collection[str]) -> bool:
    there = _splits_of(path) if meant else frozenset()
    return bool(there) and there.isdisjoint(meant) and not _is_of_coco(path)


def _is_of_coco(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return bool(_COCO_FOLDER.fullmatch(folder) and _COCO_NAME.fullmatch(name))


def _splits_of(path: str, *, whole: bool = False) -> frozenset[str]:
    """The splits that the folders of a path name; `whole`: those that are called like one, and nothing else."""
    return _splits_of_folder(path.rpartition("/")[0], whole)


@lru_cache(maxsize=10_000)  # folders hold many images
def _splits_of_folder(folder: str, whole: bool) -> frozenset[str]:
    folders = folder.lower().split("/")
    words = folders if whole else [word for part in folders for word in split_words(part)]
    return frozenset(SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES)
