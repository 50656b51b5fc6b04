"""What all sources of image files share: captions meet their images, bad ones are found, a Dataset comes out."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from easycap.data.findings import Findings, OnBadImage
from easycap.data.images import ImageFile
from easycap.data.verify import bad_images
from easycap.types import Dataset, Example

# All that str.splitlines ends a line at, and tabs.
_SEPARATORS = re.compile(r"[\n\r\t\v\f\x1c-\x1e\x85\u2028\u2029]+")


def read_json(path: Path, kind: str) -> Any:
    """Return the content of a JSON file; `ValueError` names a file that is missing or none."""
    if not path.is_file():
        raise ValueError(f"{path} is missing: it should be {kind}")
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no {kind} ({error})") from None


def match(
    split: str,
    images: Iterable[tuple[str, Path]],
    captions: Iterable[tuple[str, Any]],
    findings: Findings,
    *,
    file: Path,
    annotations: Mapping[str, Any] | None = None,
    tags: Mapping[str, tuple[str, ...]] | None = None,
) -> list[Example]:
    """Return an Example for each of `images` (id, path), in their order, with its `captions` (id, text).

    `file` is where the captions stand, `annotations` {id: anything} what scorers may read, `tags` {id: words}
    those that the data has itself. Left out, or an error:
    a caption that is no text, an id that comes twice, an image without a caption, a caption of an unknown image.
    """
    texts: dict[str, list[str]] = defaultdict(list)
    for image_id, text in captions:
        if clean := _one_line(split, image_id, text, findings, file):
            texts[image_id].append(clean)
    paths: dict[str, Path] = {}
    for image_id, path in images:
        if image_id in paths:
            findings.leave_out(split, image_id, path, f"has the id of {paths[image_id].name}")
        else:
            paths[image_id] = path
    for image_id in texts.keys() - paths.keys():
        findings.leave_out(split, image_id, file, f"has captions of the unknown image {image_id!r}")
    examples = []
    for image_id, path in paths.items():
        if image_id not in texts:
            findings.leave_out(split, image_id, path, "has no caption")
            continue
        known = (annotations or {}).get(image_id)
        own = (tags or {}).get(image_id, ())
        examples.append(Example(image_id, ImageFile(path), tuple(texts[image_id]), own, known))
    return examples


def _one_line(split: str, image_id: str, text: Any, findings: Findings, file: Path) -> str:
    """A caption as one line; those of COCO that merely end with a line break are nothing to tell of."""
    if not isinstance(text, str):
        findings.leave_out(split, image_id, file, f"has a caption that is no text: {json.dumps(text)[:40]}")
        return ""
    text = text.strip()
    if not text:
        findings.repaired(split, image_id, file, "has an empty caption: left out")
    elif _SEPARATORS.search(text):
        text = " ".join(text.split())
        findings.repaired(split, image_id, file, "has a caption of several lines: read as one")
    return text


def finish(
    name: str, splits: dict[str, list[Example]], findings: Findings, scorers: Sequence[str] = ()
) -> Dataset:
    """Return the Dataset of splits that have been read, without images that are missing, damaged or in two splits.

    Missing files are found at once. With OnBadImage.skip every image is decoded once, by all cores, and the outcome
    remembered until the file changes; with OnBadImage.error a damaged one ends the run that meets it. Where nobody
    sees pixels (`findings.pixels`) no file is looked at.
    """
    kept: dict[int, list[Example]] = {}  # a list may serve as two splits: val as test
    seen: dict[str, str] = {}
    names: dict[Path, frozenset[str]] = {}
    for split, examples in splits.items():
        if id(examples) not in kept:
            kept[id(examples)] = [example for example in examples if _is_new(example, split, seen, findings)]
            if findings.pixels:
                new = kept[id(examples)]
                kept[id(examples)] = [
                    example for example in new if _is_there(example, split, names, findings)
                ]
    if findings.pixels and findings.on_bad_image is OnBadImage.skip:
        _leave_out_damaged(kept, splits, findings)
    return Dataset(
        name,
        {split: kept[id(examples)] for split, examples in splits.items()},
        tuple(scorers),
        tuple(findings.found),
    )


def _is_new(example: Example, split: str, seen: dict[str, str], findings: Findings) -> bool:
    other = seen.setdefault(example.id, split)
    if other != split:
        findings.leave_out(split, example.id, example.image.path, f"is in the {other} split already")
    return other == split


def _is_there(example: Example, split: str, names: dict[Path, frozenset[str]], findings: Findings) -> bool:
    path = example.image.path
    if path.parent not in names:
        # One listing instead of a question per file: of 118,287 files on a network disk that is minutes less.
        names[path.parent] = frozenset(os.listdir(path.parent)) if path.parent.is_dir() else frozenset()
    if path.name in names[path.parent]:
        return True
    findings.leave_out(split, example.id, path, "does not exist")
    return False


def _leave_out_damaged(
    kept: dict[int, list[Example]], splits: dict[str, list[Example]], findings: Findings
) -> None:
    bad = bad_images([example.image.path for examples in kept.values() for example in examples])
    names = {id(examples): split for split, examples in reversed(splits.items())}
    for key, examples in kept.items():
        for example in examples:
            if what := bad.get(example.image.path):
                findings.leave_out(names[key], example.id, example.image.path, what)
        kept[key] = [example for example in examples if example.image.path not in bad]
