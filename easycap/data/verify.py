"""Decodes every image of a data set once, to know the damaged ones before training meets them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from easycap.data.images import BadImage
from easycap.data.issues import UnreadImage
from easycap.types import ImageSource
from easycap.utils.machine import usable_cores
from easycap.utils.paths import cache_dir
from easycap.utils.processes import lock
from easycap.utils.progress_bar import tracked

_CHUNK = 256


def bad_images(images: Sequence[ImageSource]) -> dict[ImageSource, str]:
    """Return {image: what is wrong} of the images that are missing or cannot be decoded.

    Threads on all cores decode, as Pillow does outside of Python's lock; JPEGs at an eighth of their size, which reads
    every byte of them. What was found is kept in the user's cache, keyed by every file's path, size and time of change.
    """

    def what_is_wrong(number: str) -> str | None:
        return _what_is_wrong(images[int(number)])

    found = bad_ones("bad_images", list(map(str, range(len(images)))), what_is_wrong, key=_digest(images))
    return {images[int(number)]: what for number, what in found.items()}


def bad_ones(
    kind: str, names: Sequence[str], what_is_wrong: Callable[[str], str | None], *, key: str
) -> dict[str, str]:
    """Return {name: what is wrong} of the names that `what_is_wrong` answers for, asked by threads on all cores.

    The answers are kept in the folder `kind` of the user's cache until `key` changes.
    """
    kept = cache_dir() / kind / f"{key}.json"
    with lock(kept.with_suffix(".lock")):  # of several ranks one reads, the others wait for what it finds
        if kept.is_file():
            return json.loads(kept.read_text(encoding="utf-8"))
        bad = _ask_all(names, what_is_wrong)
        new = kept.with_suffix(".new")
        new.write_text(json.dumps(bad), encoding="utf-8")
        new.replace(kept)
    return bad


def _ask_all(names: Sequence[str], what_is_wrong: Callable[[str], str | None]) -> dict[str, str]:
    names_left = tracked(names, "reading every image once", len(names), unit="files")
    bad: dict[str, str] = {}
    with ThreadPoolExecutor(usable_cores()) as pool:
        while chunk := list(islice(names_left, _CHUNK)):  # so that Ctrl-C waits for one chunk, not for all
            bad |= {n: what for n, what in zip(chunk, pool.map(what_is_wrong, chunk), strict=True) if what}
    return bad


def _what_is_wrong(image: ImageSource) -> str | None:
    try:
        image.load(at_least=1)
    except UnreadImage:
        raise  # not the image's fault: it must not be remembered
    except BadImage as error:
        return error.what
    return None


def _digest(images: Sequence[ImageSource]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(Path(__file__).with_name("images.py").read_bytes())  # what counts as damaged
    for image in images:
        try:
            digest.update(image.identity().encode("utf-8", "surrogateescape"))
        except FileNotFoundError:
            digest.update(b"missing\n")
    return digest.hexdigest()
