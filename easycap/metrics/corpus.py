"""Captions and references, checked and tokenised: the one door through which every scorer gets its text."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from easycap.errors import UserError
from easycap.metrics.ngrams import NgramCounts, count_ngrams
from easycap.metrics.tokenizer import tokenize, version
from easycap.utils.ids import KnownIds
from easycap.utils.segmenters import SPACES, Segmenter

log = logging.getLogger(__name__)

_T = TypeVar("_T")

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
    segmenter: Segmenter = SPACES

    @property
    def num_empty(self) -> int:
        """How many captions have no word; they score 0."""
        return sum(not tokens for tokens in self.captions)

    @cached_property
    def caption_ngrams(self) -> NgramCounts:
        """Return the n-grams of the captions, counted when they are first asked for."""
        return count_ngrams(self.captions)

    @cached_property
    def reference_ngrams(self) -> NgramCounts:
        """Return the n-grams of the references, counted when they are first asked for."""
        # Sorted, so that sums do not depend on the order of a file's rows.
        return count_ngrams([tokens for references in self.references for tokens in sorted(references)])

    @cached_property
    def tokenizer(self) -> str:
        """The tokeniser's version, determined by the references: the same for all captions of these images."""
        return tokenizer_name(
            self.segmenter, (text for references in self.reference_texts for text in references)
        )

    @cached_property
    def digest(self) -> str:
        """Eight hex digits of ids and references: equal for equal images and references in any order."""
        digest = hashlib.blake2b(digest_size=4)
        for image_id, references in zip(self.ids, self.reference_texts, strict=True):
            digest.update("\0".join([image_id, *sorted(references), "\n"]).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def tokenizer_name(segmenter: Segmenter, texts: Iterable[str]) -> str:
    """Return how `texts` are cut into tokens, for signatures: the segmenter, if any, then the tokeniser's version."""
    name = version(map(segmenter, texts))
    return f"{segmenter.signature}+{name}" if segmenter.signature else name


def prepare(
    captions: Captions | Sequence[str],
    references: References | Sequence[Sequence[str]],
    *,
    partial: bool = False,
    segmenter: Segmenter = SPACES,
) -> Corpus:
    """Check captions against references and tokenise both; empty references are dropped with a warning.

    Two lists belong together by position. Raises `UserError` for an unknown, duplicate or missing id (missing ones are
    left out with `partial`), a caption or reference that is not a string, an image without references, and for nothing
    to score.
    """
    captions_with_ids, references_with_ids = _with_ids(captions, references)
    wanted = references_by_id(references_with_ids)
    found = match_ids(captions_by_id(captions_with_ids), wanted)
    unknown = sorted(found.keys() - wanted.keys())
    _refuse(unknown, "caption", "no references; remove them or add references", KnownIds(wanted).suggestion)
    missing = sorted(wanted.keys() - found.keys())
    if not partial:
        _refuse(missing, "image", "no caption; add them, or pass partial (--partial) to score without them")
    ids = sorted(found)
    if not ids:
        raise UserError("there is nothing to score: no image has a caption and references")
    return _tokenized(ids, found, wanted, len(missing), segmenter)


def _with_ids(captions: Any, references: Any) -> tuple[Captions, References]:
    """Return captions and references by id; those of two lists get their positions."""
    if isinstance(references, Mapping):
        return captions, references
    if not (_is_list_of(captions, str) and _is_list_of(references, (list, tuple))):
        raise UserError(
            "references must be {id: [reference, ...]}; for a list of captions, a list of lists in the same order"
        )
    if len(captions) != len(references):
        raise UserError(f"there are {len(captions)} captions but references of {len(references)} images")
    return dict(enumerate(captions)), dict(enumerate(references))


def _is_list_of(values: Any, kind: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(isinstance(value, kind) for value in values)


def _tokenized(
    ids: list[str],
    found: dict[str, str],
    wanted: dict[str, list[str]],
    missing: int,
    segmenter: Segmenter,
) -> Corpus:
    kept, tokens, bare, dropped = [], [], [], 0
    for image_id in ids:
        pairs = [(text, words) for text in wanted[image_id] if (words := tokenize(segmenter(text)))]
        dropped += len(wanted[image_id]) - len(pairs)
        kept.append([text for text, _ in pairs])
        tokens.append([words for _, words in pairs])
        if not pairs:
            bare.append(image_id)
    _refuse(bare, "image", "no reference with a word in it; remove the image or add references")
    if dropped:
        log.warning("%d empty references were dropped", dropped)
    texts = [found[image_id] for image_id in ids]
    captions = [tokenize(segmenter(text)) for text in texts]
    return Corpus(ids, texts, kept, captions, tokens, missing, segmenter)


def match_ids(captions: Mapping[str, _T], references: Collection[str]) -> dict[str, _T]:
    """Return {id: captions} with ids of `captions` that are spelled differently replaced by those of `references`.

    000000000139, 139.0 and COCO_val2014_000000000139.jpg all mean 139; see `KnownIds`. Raises `UserError` if two ids
    mean the same image.
    """
    if captions.keys() <= set(references):
        return dict(captions)
    meant = KnownIds(references).resolve(captions)
    named: dict[str, str] = {}
    for name, image_id in meant.items():
        if named.setdefault(image_id, name) != name:
            raise UserError(
                f"image {image_id!r} has two captions, as {named[image_id]!r} and as {name!r}; keep one"
            )
    others = [name for name, image_id in meant.items() if name != image_id]
    if others:
        log.warning(
            "matched %d image ids that are written differently in the references, e.g. %r is taken for %r",
            *(len(others), others[0], meant[others[0]]),
        )
    return {meant.get(name, name): one for name, one in captions.items()}


def normal_id(image_id: Any) -> str:
    """Return an image id as text, 42 and 42.0 as "42"; raises `UserError` unless it is a string or a whole number."""
    if isinstance(image_id, str) and image_id:
        return image_id
    if isinstance(image_id, int) and not isinstance(image_id, bool):
        return str(image_id)
    if isinstance(image_id, float) and image_id.is_integer():
        return str(int(image_id))
    raise UserError(f"image id {image_id!r} is neither a whole number nor a non-empty string")


def captions_by_id(captions: Captions) -> dict[str, str]:
    """Return {id: caption}, ids as text; raises `UserError` for a duplicate id or a non-string caption."""
    found: dict[str, str] = {}
    for image_id, caption in caption_rows(captions):
        image_id = normal_id(image_id)
        if image_id in found:
            raise UserError(
                f"image {image_id!r} has two captions; keep one (easycap score --several takes more, for every image)"
            )
        if not isinstance(caption, str):
            raise UserError(f"the caption of image {image_id!r} is {_shown(caption)}, not a string")
        found[image_id] = caption
    return found


def caption_rows(captions: Mapping[Any, Any] | Iterable[Mapping[str, Any]]) -> Iterable[tuple[Any, Any]]:
    """Return (id, caption) of each row, not checked further; raises `UserError` for anything else."""
    return captions.items() if isinstance(captions, Mapping) else map(_row, captions)


def _row(row: Mapping[str, Any]) -> tuple[Any, Any]:
    if not isinstance(row, Mapping) or not {"image_id", "caption"} <= row.keys():
        raise UserError(f'{_shown(row)} is not a caption; each must be {{"image_id": ..., "caption": ...}}')
    return row["image_id"], row["caption"]


def references_by_id(references: References) -> dict[str, list[str]]:
    """Return {id: references}, ids as text; raises `UserError` as `captions_by_id` does."""
    wanted: dict[str, list[str]] = {}
    for image_id, texts in references.items():
        image_id = normal_id(image_id)
        if image_id in wanted:
            raise UserError(f"image {image_id!r} has references twice, as a number and as text; join them")
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise UserError(
                f"the references of image {image_id!r} are {_shown(texts)}, not a list of strings"
            )
        for text in texts:
            if not isinstance(text, str):
                raise UserError(f"a reference of image {image_id!r} is {_shown(text)}, not a string")
        wanted[image_id] = list(texts)
    return wanted


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _refuse(
    ids: Sequence[str], what: str, trouble: str, hint: Callable[[str], str] = lambda image_id: ""
) -> None:
    if ids:
        plural = f"{len(ids)} {what}s have" if len(ids) > 1 else f"1 {what} has"
        more = ", ..." if len(ids) > 10 else ""
        raise UserError(f"{plural} {trouble}: {', '.join(map(repr, ids[:10]))}{more}{hint(ids[0])}")
