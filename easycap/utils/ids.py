"""Match differently written image ids with the known ones."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cached_property
from typing import Any

_SUFFIX = re.compile(
    r"\.(jpe?g|jpe|jfif|a?png|webp|bmp|dib|gif|tiff?|jp2|j2k|jpx|avif|hei[cf]|p[gpn]m|tga)$", re.IGNORECASE
)
# A number as it stands in tables and in COCO's file names.
_NUMBER = re.compile(r"(?:COCO_[a-z]+\d{4}_)?0*(\d+)(?:\.0+)?", re.IGNORECASE)
# Comparing a name with all of many others takes milliseconds.
_MOST_COMPARED, _MOST_SUGGESTED = 20_000, 20


def without_suffix(name: str) -> str:
    """Return a file name without an image file's suffix, if it has one."""
    return _SUFFIX.sub("", name)


def plain_number(image_id: Any) -> str | None:
    """Return "139" for 139, 139.0, "139", "000000000139", "139.0" and COCO's file names; None for other ids."""
    if isinstance(image_id, bool) or not isinstance(image_id, int | float | str):
        return None
    found = _NUMBER.fullmatch(without_suffix(str(image_id).strip()))
    return found and found[1]


class KnownIds:
    r"""Finds the known id that a name means, if it is unambiguous.

    `aliases` {name: id} are additional names of ids. Names are compared by these, until one matches: the text in NFC
    with / for \ and without ./; lower case; without an image suffix; the number; and finally the path without leading
    folders, on either side.
    """

    def __init__(self, known: Iterable[str], aliases: Mapping[str, str] | None = None) -> None:
        self.known = frozenset(known)
        self.names = [(name, name) for name in sorted(self.known)] + sorted((aliases or {}).items())
        self.suggested = 0

    def resolve(self, names: Iterable[str]) -> dict[str, str]:
        """Return {name: known id} for the names that match one.

        Folders are ignored only if no other of `names` would match the same image: a/x.jpg and b/x.jpg are two images.
        """
        names = list(dict.fromkeys(names))
        others = [name for name in names if name not in self.known]
        found = {name: name for name in names if name in self.known}
        if not others:
            return found
        found |= {name: one for name in others if (one := _only(self._alike(name)))}
        claimed = defaultdict(list)
        for name in others:
            if name not in found and (one := _only(self._elsewhere(name))):
                claimed[one].append(name)
        taken = frozenset(found.values())
        return found | {
            group[0]: one for one, group in claimed.items() if len(group) == 1 and one not in taken
        }

    def means_one(self, name: str) -> bool:
        """Return whether a name means exactly one known id."""
        return name in self.known or _only(self._alike(name) or self._elsewhere(name)) is not None

    def suggestion(self, name: str) -> str:
        """Return "; did you mean 'x'?" if a similar id is known, else ""."""
        hits = sorted(self._alike(name) or self._elsewhere(name))
        if not hits and self.suggested < _MOST_SUGGESTED and len(self.known) <= _MOST_COMPARED:
            self.suggested += 1
            hits = get_close_matches(name, self.known, n=1, cutoff=0.75)
        return f"; did you mean {' or '.join(map(repr, hits[:2]))}?" if hits else ""

    def _alike(self, name: str) -> frozenset[str]:
        """The ids with the same text or number, ignoring differences in spelling."""
        for form, index in zip(_FORMS, self._indices, strict=True):
            key = form(name)
            if key is not None and key in index:
                return frozenset(index[key])
        return frozenset()

    def _elsewhere(self, name: str) -> frozenset[str]:
        """The ids whose path is the end of the name's, or ends with the name."""
        bare = _bare(name)
        for tail in list(_tails(bare))[1:]:
            for key, index in ((tail, self._indices[2]), (plain_number(tail), self._indices[3])):
                if key is not None and key in index:
                    return frozenset(index[key])
        return frozenset(self._by_tail.get(bare) or self._by_tail.get(_number_key(name) or "") or ())

    @cached_property
    def _indices(self) -> list[dict[str, set[str]]]:
        """For each form {text: ids}."""
        indices: list[dict[str, set[str]]] = []
        for form in _FORMS:
            index = defaultdict(set)
            for name, one in self.names:
                if (key := form(name)) is not None:
                    index[key].add(one)
            indices.append(dict(index))
        return indices

    @cached_property
    def _by_tail(self) -> dict[str, set[str]]:
        index = defaultdict(set)
        for name, one in self.names:
            tails = list(_tails(_bare(name)))[1:]
            for tail in (*tails, *map(_number_key, tails[-1:])):
                if tail is not None:
                    index[tail].add(one)
        return dict(index)


def _path(name: str) -> str:
    parts = unicodedata.normalize("NFC", name.strip()).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def _lower(name: str) -> str:
    return _path(name).casefold()


def _bare(name: str) -> str:
    return without_suffix(_lower(name))


_FORMS: tuple[Callable[[str], str | None], ...] = (_path, _lower, _bare, plain_number)


def _number_key(name: str) -> str | None:
    """A key for a numeric name that cannot clash with a name."""
    number = plain_number(name)
    return number and f"/{number}"


def _tails(path: str) -> Iterator[str]:
    """a/b/c, b/c, c."""
    while path:
        yield path
        path = path.partition("/")[2]


def _only(found: frozenset[str]) -> str | None:
    return next(iter(found)) if len(found) == 1 else None
