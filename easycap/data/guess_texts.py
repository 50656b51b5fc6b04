"""Captions in a folder that are not in a table: texts beside the images, or lines in the order of a list of images."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from easycap.data.data_splits import SPLITS
from easycap.data.guess_tables import Found, pattern_of, split_of_path
from easycap.data.image_index import ImageIndex, with_split_words
from easycap.data.table_settings import matching
from easycap.data.text_files import read_text
from easycap.errors import UserError
from easycap.utils.ids import without_suffix
from easycap.utils.text import count_text

_SUFFIXES = (".txt", ".caption", ".captions", ".cap", ".text", ".json")
_LARGEST = 50_000_000  # bytes; a list of images and its captions are smaller
_FIRST = 10_000  # characters, in which a first line ends


def sidecar_readings(folder: Path, files: Sequence[str], index: ImageIndex) -> list[Found]:
    """Return the reading by texts beside images, x.txt or x.jpg.txt of x.jpg: of several kinds the more usual one."""
    images = set(index.images)
    stems = {without_suffix(path) for path in images}
    counts = Counter[str]()
    for path in files:
        text = path.rpartition(".")[0]
        if _ending(path) in _SUFFIXES and (text in stems or text in images):
            counts[path.removeprefix(without_suffix(text))] += 1
    if not counts:
        return []
    most = min(counts, key=lambda suffix: (_SUFFIXES.index(_ending(suffix)), -counts[suffix]))
    why = f"{counts[most]:,} of {count_text(len(images), 'image')} have a {most} file next to them"
    return [({"root": str(folder), "sidecar": most}, why)]


def _ending(path: str) -> str:
    return f".{path.rpartition('.')[2].lower()}"


def folder_readings(folder: Path, files: Sequence[str], index: ImageIndex) -> list[Found]:
    """Return the reading, as data=folder, by texts in a folder laid out as that of the images: a/x.txt and b/x.jpg."""
    named = {without_suffix(path).rpartition("/")[2]: path for path in index.images}
    pairs = Counter[tuple[str, str]]()
    for path in files:
        stem = path.removesuffix(".txt")
        if stem != path and (image := named.get(stem.rpartition("/")[2])):
            pairs[_where_they_part(without_suffix(image), stem)] += 1
    if not pairs:
        return []
    (images, texts), count = pairs.most_common(1)[0]
    every = count_text(len(index.images), "image")
    why = f"{count:,} of {every}, in {images or folder}, have a .txt file in {texts or folder}"
    return [({"images": str(folder / images), "captions": str(folder / texts)}, why)]


def _where_they_part(one: str, other: str) -> tuple[str, str]:
    """Two paths without the end that they share."""
    ones, others = one.split("/"), other.split("/")
    while ones and others and ones[-1] == others[-1]:
        ones.pop()
        others.pop()
    return "/".join(ones), "/".join(others)


def lines_readings(folder: Path, files: Sequence[str], index: ImageIndex) -> tuple[list[Found], list[str]]:
    """Return the readings by files that list images, of each split one or of all, with others of as many lines.

    And why some cannot be read, a sentence each.
    """

    @cache
    def lines(path: str) -> Sequence[str]:
        return _lines(folder / path)

    lists = [path for path in files if _lists_images(folder / path, split_of_path(path), index)]
    lists = [
        p for p in lists if lines(p) and all(index.knows(n.strip(), "", split_of_path(p)) for n in lines(p))
    ]
    others = [path for path in files if path not in lists]
    listings: dict[str, dict[str | None, str]] = defaultdict(dict)
    for path in lists:
        listings[with_split_words(path, "*")][split_of_path(path)] = path
    found: list[Found] = []
    reasons: list[str] = []
    for listing in listings.values():
        kinds: dict[str, dict[str | None, list[str]]] = defaultdict(lambda: defaultdict(list))
        for path in others:
            split = split_of_path(path)
            if split in listing and len(lines(path)) == len(lines(listing[split])):
                kinds[re.sub(r"\d+", "#", with_split_words(path, "*"))][split].append(path)
        for captions in kinds.values():
            try:
                found.append(_reading(folder, listing, captions))
            except UserError as error:
                reasons.append(str(error))
    return found, reasons


def _reading(
    folder: Path, listing: Mapping[str | None, str], captions: Mapping[str | None, Sequence[str]]
) -> Found:
    captions = {split: captions[split] for split in (None, *SPLITS) if split in captions}
    lists = {split: listing[split] for split in captions}
    settings: dict[str, str | None] = {"root": str(folder), "image_list": _list_pattern(folder, lists)}
    for split, paths in captions.items():
        settings[split or "captions"] = pattern_of(folder, paths, split or "captions")
    texts = " and ".join(path for paths in captions.values() for path in paths)
    return settings, f"{' and '.join(lists.values())} list images, {texts} their captions"


def _list_pattern(folder: Path, lists: Mapping[str | None, str]) -> str:
    """A pattern that names each split's list, with {split} in the place of the split."""
    if len(lists) == 1:
        return next(iter(lists.values()))
    named = {split: with_split_words(path, "{split}") for split, path in lists.items()}
    is_named = {split: named[split].replace("{split}", split or "") == path for split, path in lists.items()}
    first = {named[split]: None for split in lists if is_named[split]}
    pattern = "|".join([*first, *(path for split, path in lists.items() if not is_named[split])])
    for split, path in lists.items():
        if matching(folder, pattern, split, setting="data.image_list") != [folder / path]:
            raise UserError(
                f"no single pattern matches only {' and '.join(lists.values())}: set data.image_list"
            )
    return pattern


def _lists_images(path: Path, split: str | None, index: ImageIndex) -> bool:
    """Whether the first line of a file is an image."""
    if path.stat().st_size > _LARGEST:
        return False
    try:
        first = read_text(path, most=_FIRST).split("\n", 1)[0].strip()
    except UserError:
        return False
    return bool(first) and index.knows(first, "", split)


def _lines(path: Path) -> Sequence[str]:
    if path.stat().st_size > _LARGEST:
        return ()
    try:
        return read_text(path).removesuffix("\n").split("\n")
    except UserError:
        return ()
