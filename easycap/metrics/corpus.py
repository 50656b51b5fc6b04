"""Captions and references, checked and tokenised: the one door through which every scorer gets its text."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from easycap.metrics.ngrams import NgramCounts, count_ngrams
from easycap.metrics.tokenizer import tokenize

log = logging.getLogger(__name__)

# Either {id: caption} or the rows of a COCO results file.
Captions = Mapping[Any, str] | Iterable[Mapping[str, Any]]
References = Mapping[Any, Sequence[str]]


@dataclass(frozen=True)
class Corpus:
    """N images in the order of their ids: captions (N) and references (N lists), as text and as tokens.

    `missing` counts images left out because they have no caption (only with `partial`).
    """

    ids: list[str]
    texts: list[str]
    reference_texts: list[list[str]]
    captions: list[list[str]]
    references: list[list[list[str]]]
    missing: int = 0

    @property
    def num_empty(self) -> int:
        """How many captions have no word; they score 0."""
        return sum(not tokens for tokens in self.captions)

    @cached_property
    def caption_ngrams(self) -> NgramCounts:
        return count_ngrams(self.captions)

    @cached_property
    def reference_ngrams(self) -> NgramCounts:
        # Sorted, so that sums do not depend on the order of a file's rows.
        return count_ngrams([tokens for references in self.references for tokens in sorted(references)])

    @cached_property
    def digest(self) -> str:
        """Eight hex digits of ids and references: equal for equal images and references in any order."""
        digest = hashlib.blake2b(digest_size=4)
        for image_id, references in zip(self.ids, self.reference_texts, strict=True):
            digest.update("\0".join([image_id, *sorted(references), "\n"]).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def prepare(captions: Captions, references: References, *, partial: bool = False) -> Corpus:
    """Check captions against references and tokenise both; empty references are dropped with a warning.

    Raises `ValueError` for an unknown, duplicate or missing id (missing ones are left out with `partial`), a
    caption or reference that is no string, an image without references, and for nothing to score.
    """
    found, wanted = captions_by_id(captions), references_by_id(references)
    _refuse(sorted(found.keys() - wanted.keys()), "caption", "no references; remove them or add references")
    missing = sorted(wanted.keys() - found.keys())
    if not partial:
        _refuse(missing, "image", "no caption; add them, or pass partial (--partial) to score without them")
    ids = sorted(found)
    if not ids:
        raise ValueError("there is nothing to score: no image has a caption and references")
    return _tokenized(ids, found, wanted, len(missing))


def _tokenized(ids: list[str], found: dict[str, str], wanted: dict[str, list[str]], missing: int) -> Corpus:
    kept, tokens, bare, dropped = [], [], [], 0
    for image_id in ids:
        pairs = [(text, words) for text in wanted[image_id] if (words := tokenize(text))]
        dropped += len(wanted[image_id]) - len(pairs)
        kept.append([text for text, _ in pairs])
        tokens.append([words for _, words in pairs])
        if not pairs:
            bare.append(image_id)
    _refuse(bare, "image", "no reference with a word in it; remove the image or add references")
    if dropped:
        log.warning("%d empty references were dropped", dropped)
    texts = [found[image_id] for image_id in ids]
    return Corpus(ids, texts, kept, [tokenize(text) for text in texts], tokens, missing)


def normal_id(image_id: Any) -> str:
    """Return an image id as text, 42 as "42"; raises `ValueError` unless it is a string or a whole number."""
    if isinstance(image_id, str) and image_id:
        return image_id
    if isinstance(image_id, int) and not isinstance(image_id, bool):
        return str(image_id)
    raise ValueError(f"image id {image_id!r} is neither a whole number nor a non-empty string")


def captions_by_id(captions: Captions) -> dict[str, str]:
    """Return {id: caption}, ids as text; raises `ValueError` for a duplicate id or a non-string caption."""
    found: dict[str, str] = {}
    for image_id, caption in caption_rows(captions):
        image_id = normal_id(image_id)
        if image_id in found:
            raise ValueError(
                f"image {image_id!r} has two captions; keep one (easycap score --several takes more, for every image)"
            )
        if not isinstance(caption, str):
            raise ValueError(f"the caption of image {image_id!r} is {_shown(caption)}, not a string")
        found[image_id] = caption
    return found


def caption_rows(captions: Mapping[Any, Any] | Iterable[Mapping[str, Any]]) -> Iterable[tuple[Any, Any]]:
    """Return (id, caption) of each row, not checked further; raises `ValueError` for what is no such row."""
    return captions.items() if isinstance(captions, Mapping) else map(_row, captions)


def _row(row: Mapping[str, Any]) -> tuple[Any, Any]:
    if not isinstance(row, Mapping) or not {"image_id", "caption"} <= row.keys():
        raise ValueError(f'{_shown(row)} is no caption; each must be {{"image_id": ..., "caption": ...}}')
    return row["image_id"], row["caption"]


def references_by_id(references: References) -> dict[str, list[str]]:
    """Return {id: references}, ids as text; raises `ValueError` as `captions_by_id` does."""
    wanted: dict[str, list[str]] = {}
    for image_id, texts in references.items():
        image_id = normal_id(image_id)
        if image_id in wanted:
            raise ValueError(f"image {image_id!r} has references twice, as a number and as text; join them")
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise ValueError(
                f"the references of image {image_id!r} are {_shown(texts)}, not a list of strings"
            )
        for text in texts:
            if not isinstance(text, str):
                raise ValueError(f"a reference of image {image_id!r} is {_shown(text)}, not a string")
        wanted[image_id] = list(texts)
    return wanted


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _refuse(ids: Sequence[str], what: str, trouble: str) -> None:
    if ids:
        plural = f"{len(ids)} {what}s have" if len(ids) > 1 else f"1 {what} has"
        more = ", ..." if len(ids) > 10 else ""
        raise ValueError(f"{plural} {trouble}: {', '.join(map(repr, ids[:10]))}{more}")
