"""What all sources of image files share: captions meet their images, bad ones are found, a Dataset comes out."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from easycap.data.arrow_images import ArrowImage
from easycap.data.caption_checks import EMPTY, LINES, NOT_TEXT, SURROGATES, cleaned, has_word
from easycap.data.example_table import id_hashes, ids_of, selected
from easycap.data.images import ImageFile
from easycap.data.issues import DataIssues, OnBadImage
from easycap.data.parquet_images import ParquetImage
from easycap.data.shards.shard_images import ShardImage
from easycap.data.verify import bad_images
from easycap.errors import UserError, json_fault
from easycap.types import Dataset, Example

Examples = TypeVar("Examples", bound=Sequence[Example])


def read_json(path: Path, kind: str) -> Any:
    """Return the content of a JSON file; `UserError` names a file that is missing or not JSON."""
    if not path.is_file():
        raise UserError(f"{path} is missing: it should be {kind}")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not {kind} ({json_fault(error)})") from None


def match(
    split: str,
    images: Iterable[tuple[str, Path]],
    captions: Iterable[tuple[str, Any]],
    issues: DataIssues,
    *,
    file: Path,
    annotations: Mapping[str, Any] | None = None,
    tags: Mapping[str, tuple[str, ...]] | None = None,
    fields: Mapping[str, Mapping[str, str]] | None = None,
    hint: Callable[[str], str] = lambda image_id: "",
) -> list[Example]:
    """Return an Example for each of `images` (id, path), in their order, with its `captions` (id, text).

    `file` is where the captions stand, `annotations` {id: anything} what scorers may read, `tags` {id: words} those
    that the data has itself, `fields` {id: columns} what `Example.fields` keeps. Left out, or an error: a caption that
    is not text, an id that comes twice, an image without a caption or with captions that no metric finds a word in, a
    caption of an unknown image, of which `hint` says what it might be.
    """
    texts: dict[str, list[str]] = defaultdict(list)
    for image_id, text in captions:
        if clean := one_line(split, image_id, text, issues, file):
            texts[image_id].append(clean)
    paths: dict[str, Path] = {}
    for image_id, path in images:
        if image_id in paths:
            issues.drop(split, image_id, path, f"has the id of {paths[image_id].name}")
        else:
            paths[image_id] = path
    for image_id in texts:
        if image_id not in paths:
            what = f"has captions of the unknown image {image_id!r}{hint(image_id)}"
            issues.drop(split, image_id, file, what)
    examples = []
    for image_id, path in paths.items():
        if image_id not in texts:
            issues.drop(split, image_id, path, "has no caption")
            continue
        if not has_words(texts[image_id]):
            what = f"has no caption that contains a word: {texts[image_id][0][:40]!r}"
            issues.drop(split, image_id, path, what)
            continue
        known = (annotations or {}).get(image_id)
        if annotations and known is None:
            what = "has no entry in the file of objects, which must list all images or none"
            issues.drop(split, image_id, path, what)
            continue
        own = (tags or {}).get(image_id, ())
        columns = (fields or {}).get(image_id, {})
        examples.append(Example(image_id, ImageFile(path), tuple(texts[image_id]), own, known, columns))
    return examples


def has_words(captions: Iterable[Any]) -> bool:
    """Return whether any of `captions` contains a word according to the metrics; others cannot be scored."""
    return any(isinstance(caption, str) and has_word(caption) for caption in captions)


def one_line(split: str, image_id: str, text: Any, issues: DataIssues, file: Path) -> str:
    """Return a caption as one line in NFC, "" if nothing remains; changes are added to `issues`."""
    caption, flags = cleaned(text)
    if flags:
        report_caption(split, image_id, flags, text, issues, file)
    return caption


def report_caption(split: str, image_id: str, flags: int, text: Any, issues: DataIssues, file: Path) -> None:
    """Report what `caption_checks.cleaned` found; `text` is asked for if it is none."""
    if flags & NOT_TEXT:
        issues.drop(split, image_id, file, f"has a caption that is not text: {json.dumps(text)[:40]}")
    elif flags & EMPTY:
        issues.fixed(split, image_id, file, "has an empty caption: dropped")
    elif flags & LINES:
        issues.fixed(split, image_id, file, "has a caption of several lines: read as one")
    if flags & SURROGATES:
        what = "has a caption with half a character (a lone surrogate): replaced by \N{REPLACEMENT CHARACTER}"
        issues.fixed(split, image_id, file, what)


def finish(
    name: str,
    splits: Mapping[str, Examples],
    issues: DataIssues,
    *,
    file: Path,
    why_empty: str,
    noted_as: Mapping[str, str] | None = None,
    scorers: Sequence[str] = (),
    is_there: Callable[[Examples], np.ndarray] | None = None,
) -> Dataset:
    """Return the Dataset of splits that have been read, without images that are missing, damaged or in two splits.

    A split without an image is among the issues, with `why_empty` if `file` gave it none from the start; `noted_as`
    {split: name} is what the issues of `match` call it. A source that has looked for files says by `is_there` which
    examples (N,) have one; else their folders are listed.

    Missing files are found at once. With OnBadImage.skip every image is decoded once, by all cores, and the outcome
    remembered until the file changes; with OnBadImage.error a damaged one ends the run that meets it. Where nobody
    sees pixels (`issues.pixels`) no file is looked at.
    """
    kept: dict[int, Sequence[Example]] = {}  # a list may serve as two splits: val as test
    listed: dict[Path, frozenset[str]] = {}
    earlier: dict[str, Sequence[Example]] = {}
    for split, examples in splits.items():
        if id(examples) in kept:
            continue
        known = _known(examples, earlier)
        for place, other in known.items():
            example = examples[place]
            issues.drop(split, example.id, _path(example), f"is already in the {other} split")
        earlier[split] = examples
        use = np.ones(len(examples), bool)
        use[list(known)] = False
        if issues.pixels:
            there = (
                np.array([_is_there(one, listed) for one in examples])
                if is_there is None
                else is_there(examples)
            )
            for place in np.flatnonzero(use & ~there.astype(bool)).tolist():
                issues.drop(split, examples[place].id, _path(examples[place]), "does not exist")
            use &= there.astype(bool)
        kept[id(examples)] = examples if use.all() else selected(examples, use)
    if issues.pixels and issues.on_bad_image is OnBadImage.skip:
        _drop_damaged(kept, splits, issues)
    read = {split: kept[id(examples)] for split, examples in splits.items()}
    for split in [split for split, examples in read.items() if not examples]:
        issues.empty(split, file, why_empty, noted_as=(noted_as or {}).get(split))
    return Dataset(
        name,
        read,
        tuple(scorers),
        tuple(issues.found),
    )


def _path(example: Example) -> Path:
    assert isinstance(
        example.image, ImageFile | ArrowImage | ParquetImage | ShardImage
    )  # sources of image files make no others
    return example.image.path


def _known(examples: Sequence[Example], earlier: Mapping[str, Sequence[Example]]) -> dict[int, str]:
    """{place: split} of the examples that an earlier split has; ids are compared where their hashes are equal."""
    if not earlier:
        return {}
    hashes = id_hashes(examples)
    seen = np.sort(np.concatenate([id_hashes(others) for others in earlier.values()]))
    # A search among sorted numbers; np.isin takes several times as long.
    places = np.searchsorted(seen, hashes)
    alike = seen[np.minimum(places, len(seen) - 1)] == hashes if len(seen) else np.zeros(len(hashes), bool)
    suspects = frozenset(np.flatnonzero(alike).tolist())
    if not suspects:
        return {}
    ids = {place: image_id for place, image_id in enumerate(ids_of(examples)) if place in suspects}
    wanted = frozenset(ids.values())
    split_of: dict[str, str] = {}
    for split, others in earlier.items():
        for image_id in ids_of(others):
            if image_id in wanted:
                split_of.setdefault(image_id, split)
    return {place: split_of[image_id] for place, image_id in ids.items() if image_id in split_of}


def _is_there(example: Example, listed: dict[Path, frozenset[str]]) -> bool:
    path = _path(example)
    if not isinstance(example.image, ImageFile):  # it lies in a file that has been read
        return True
    if path.parent not in listed:
        # One listing instead of a question per file: of 118,287 files on a network disk that is minutes less.
        listed[path.parent] = frozenset(os.listdir(path.parent)) if path.parent.is_dir() else frozenset()
    return path.name in listed[path.parent]


def _drop_damaged(
    kept: dict[int, Sequence[Example]], splits: Mapping[str, Sequence[Example]], issues: DataIssues
) -> None:
    bad = bad_images([example.image for examples in kept.values() for example in examples])
    if not bad:
        return
    names = {id(examples): split for split, examples in reversed(list(splits.items()))}
    for key, examples in kept.items():
        use = np.ones(len(examples), bool)
        for place, example in enumerate(examples):
            if what := bad.get(example.image):
                issues.drop(names[key], example.id, _path(example), what)
                use[place] = False
        kept[key] = selected(examples, use)
