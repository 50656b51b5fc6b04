"""Public data sets: what they should hold, where to get them, how to recognise one that lies in a folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase, translate
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml


class KnownSet(NamedTuple):
    """A public data set, read by `data=<name>`.

    `images` {split: number} and `captions` (of all splits) are what is to be found, where that is known; `all` stands
    for a set that is not split. `marks` are patterns of paths by which it is recognised.
    """

    name: str
    languages: Sequence[str]
    images: Mapping[str, int]
    captions: int | None
    marks: Sequence[str]
    get: str
    licence: str
    cite: str


@cache
def known_sets() -> dict[str, KnownSet]:
    """Return {name: what is known of the data set}."""
    text = Path(__file__).with_name("known_sets.yaml").read_text(encoding="utf-8")
    stored: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return {name: KnownSet(name, **values) for name, values in stored.items()}


def recognised(folder_name: str, files: Sequence[str]) -> dict[str, str]:
    """Return {known set: the file that says so} for a folder of that name with `files` (paths within it)."""
    found: dict[str, str] = {}
    every = re.compile("|".join(translate(mark) for known in known_sets().values() for mark in known.marks))
    marked = [path for path in files if every.match(f"{folder_name}/{path}")]  # a few of perhaps millions
    for name, known in known_sets().items():
        for mark in known.marks:
            hit = next((path for path in marked if fnmatchcase(f"{folder_name}/{path}", mark)), None)
            if hit is not None:
                found[name] = hit
                break
    return found


def incomplete(name: str, splits: Iterable[str | None]) -> list[str]:
    """Return a sentence if fewer images of a known set are named in its tables than it should have, else nothing.

    `splits` has the split of each image, None where the tables do not say it.
    """
    known = known_sets().get(name)
    if known is None:
        return []
    counts = Counter(splits)
    have, expected = sum(counts.values()), sum(known.images.values())
    if have >= expected:
        return []
    parts = [
        f"{counts[split]:,} of {number:,} of {split}"
        for split, number in known.images.items()
        if split != "all" and None not in counts and counts[split] < number
    ]
    detail = f" ({', '.join(parts)})" if parts else ""
    return [
        f"{have:,} of {expected:,} images of {name}{detail} are in its tables: an incomplete download, or a part of it"
    ]
