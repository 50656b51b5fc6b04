"""The images below a folder, found by the names that tables give them: a path, a name alone, without suffix."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from easycap.data.image_files import is_image, visible_files
from easycap.data.table_columns import SPLIT_NAMES
from easycap.utils.ids import KnownIds


class ImageIndex:
    """Finds images below `root` by name.

    A name is looked for as a path below a table's own folder, below `root` and below folders called like a split; then
    as a file name that only one image has; then in other spellings (`KnownIds`): without suffix, other case, a number.
    An image in a folder of another split (`is_of_other_split`) is not the one that is meant.
    """

    def __init__(self, root: Path, files: Iterable[Path] | None = None) -> None:
        self.root = root
        every = visible_files(root) if files is None else files
        self.images = [path.relative_to(root).as_posix() for path in every if is_image(path)]
        self._there = frozenset(self.images)

    @cached_property
    def _by_name(self) -> dict[str, str | None]:
        """{file name: path below root, or None if several images have it}."""
        found: dict[str, str | None] = {}
        for path in self.images:
            name = path.rpartition("/")[2]
            found[name] = None if name in found else path
        return found

    @cached_property
    def _known(self) -> KnownIds:
        return KnownIds(self.images)

    def knows(self, name: str, folder: str = "", split: str | None = None) -> bool:
        """Return whether a name means exactly one image."""
        return bool(self.find([name], folder, split))

    def find(self, names: Iterable[str], folder: str = "", split: str | None = None) -> dict[str, Path]:
        """Return {name: file} of the names that mean one image; `folder` and `split` are those of their table."""
        found: dict[str, str] = {}
        other = []
        for name in dict.fromkeys(names):
            if (path := self._exact(name, folder, split)) is not None:
                found[name] = path
            else:
                other.append(name)
        if other:
            for name, path in self._known.resolve(other).items():
                if not is_of_other_split(path, name, folder, split):
                    found[name] = path
        return {name: self.root / path for name, path in found.items()}

    def suggestion(self, name: str) -> str:
        """Return "; did you mean ...?" for a name that means no image, "" if none is similar."""
        return self._known.suggestion(name)

    def _exact(self, name: str, folder: str, split: str | None) -> str | None:
        name = name.replace("\\", "/").removeprefix("./").lstrip("/")
        folders = [folder, "", *(each for each, meant in SPLIT_NAMES.items() if meant == split)]
        for path in (f"{each}/{name}" if each else name for each in folders):
            if path in self._there:
                return path
        same = self._by_name.get(name.rpartition("/")[2])
        return None if same is None or is_of_other_split(same, name, folder, split) else same


def is_of_other_split(path: str, name: str, folder: str = "", split: str | None = None) -> bool:
    """Return whether folders of an image's `path` name another split than is meant by the `name` in its table.

    The folders in `name` say which is meant, else `split`, else the table's own `folder`: train/2.png is not val/2.png.
    """
    meant = _splits_of(name.replace("\\", "/").rpartition("/")[0])
    meant = meant or ({split} if split else _splits_of(folder))
    there = _splits_of(path.rpartition("/")[0])
    return bool(meant and there) and meant.isdisjoint(there)


def _splits_of(folder: str) -> set[str]:
    return {SPLIT_NAMES[part] for part in folder.lower().split("/") if part in SPLIT_NAMES}
