"""Which things a caption names, against those annotated in its image: precision, recall and CHAIR.

Not used on scenes: their truth check reads whole captions and so knows more than which words occur (a "person" may
be the scene's man or its woman), and their tags name actions too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from easycap.errors import UserError
from easycap.metrics.corpus import captions_by_id, normal_id
from easycap.metrics.intervals import FromStatistics
from easycap.metrics.tokenizer import tokenize, version
from easycap.types import Score

VERSION = 1

_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "person",
    "mice": "mouse",
    "geese": "goose",
    "feet": "foot",
    "teeth": "tooth",
    "knives": "knife",
    "leaves": "leaf",
    "loaves": "loaf",
    "shelves": "shelf",
    "wolves": "wolf",
    "calves": "calf",
}


def named_things(
    captions: Mapping[str, str],
    things: Mapping[str, Collection[str]],
    *,
    known: Collection[str] | None = None,
    synonyms: Mapping[str, Iterable[str]] | None = None,
    ignored: Iterable[str] = (),
) -> dict[str, Score]:
    """Return things_precision, things_recall, CHAIR-i and CHAIR-s (Rohrbach et al., EMNLP 2018), 0..1.

    `things` {id: names} is what each image shows (object categories). A caption names a thing of `known` (by
    default, of any image's things) by its name or one of its `synonyms` {name: words}, also in the plural; the
    longest name counts, and what is `ignored`, exactly as written, names nothing. Raises `UserError` for an image
    without `things`.
    """
    texts = captions_by_id(captions)
    shown = {normal_id(image_id): {name.lower() for name in names} for image_id, names in things.items()}
    missing = sorted(texts.keys() - shown.keys())
    if missing:
        raise UserError(f"{len(missing)} images have no annotated things, e.g. {missing[0]!r}")
    ids = sorted(texts)
    everything = {name.lower() for name in known} if known else set().union(*(shown[i] for i in ids))
    lexicon = _Lexicon.of(everything, synonyms or {}, ignored)
    rows = [_counts(lexicon.named(tokenize(texts[i])), shown[i]) for i in ids]
    data = _digest(f"{i}:{','.join(sorted(shown[i]))}" for i in ids)
    tokenizer = version(" ".join(words) for words in lexicon.names)
    text = f"v:{VERSION}|tok:{tokenizer}|things:{len(everything)}|words:{lexicon.signature}"
    return _scores(ids, np.array(rows, dtype=float), f"{text}|images:{len(ids)}|data:{data}")


def _scores(ids: list[str], counts: np.ndarray, text: str) -> dict[str, Score]:
    """counts (N, 5): named, of them in the image, in the image, 1 if one is not there, 1."""
    columns = {"things_precision": (1, 0), "things_recall": (1, 2), "CHAIR-i": (5, 0), "CHAIR-s": (3, 4)}
    counts = np.column_stack([counts, counts[:, 0] - counts[:, 1]])
    scores = {}
    for name, pair in columns.items():
        statistics = counts[:, pair]
        per_image = dict(zip(ids, _share(statistics).tolist(), strict=True))
        value = float(_share(statistics.sum(axis=0)))
        scores[name] = Score(value, per_image, f"{name}|{text}", resample=FromStatistics(statistics, _share))
    return scores


def _share(statistics: np.ndarray) -> np.ndarray:
    above, below = statistics[..., 0], statistics[..., 1]
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _counts(named: set[str], shown: set[str]) -> list[int]:
    right = len(named & shown)
    return [len(named), right, len(shown), int(right < len(named)), 1]


@dataclass(frozen=True)
class _Lexicon:
    """The words that name things, {("traffic", "light"): "traffic light", ...}, and those that do not after all."""

    names: Mapping[tuple[str, ...], str]
    ignored: frozenset[tuple[str, ...]]
    longest: int

    @classmethod
    def of(
        cls, things: Collection[str], synonyms: Mapping[str, Iterable[str]], ignored: Iterable[str]
    ) -> _Lexicon:
        names = {tuple(tokenize(thing)): thing for thing in sorted(things)}
        for thing, words in synonyms.items():
            for word in words if thing.lower() in things else ():
                names.setdefault(tuple(tokenize(word)), thing.lower())
        skipped = frozenset(tuple(tokenize(words)) for words in ignored)
        return cls(names, skipped, max(map(len, [*names, *skipped]), default=0))

    @property
    def signature(self) -> str:
        rows = [f"{' '.join(words)}:{thing}" for words, thing in self.names.items()]
        return f"{len(rows)},{_digest(sorted(rows + [' '.join(words) for words in self.ignored]))}"

    def named(self, words: Sequence[str]) -> set[str]:
        """Return the things that words name, longest name first: a "traffic light" is no "light"."""
        found: set[str] = set()
        start = 0
        while start < len(words):
            size, thing = self._at(words, start)
            found |= {thing} if thing else set()
            start += size
        return found

    def _at(self, words: Sequence[str], start: int) -> tuple[int, str | None]:
        """How many words from `start` on belong together, and the thing that they name."""
        for size in range(min(self.longest, len(words) - start), 0, -1):
            *head, last = words[start : start + size]
            if (*head, last) in self.ignored:
                return size, None
            for form in _singulars(last):
                if (*head, form) in self.names:
                    return size, self.names[(*head, form)]
        return 1, None


def _digest(lines: Iterable[str]) -> str:
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=4).hexdigest()


def _singulars(word: str) -> list[str]:
    """Return the word and what it may be the plural of, by rule: horses is horse (or hors), buses bus (or buse)."""
    forms = [word]
    if word in _IRREGULAR:
        forms.append(_IRREGULAR[word])
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        forms.append(word[:-1])
        if word.endswith("ies"):
            forms.append(word[:-3] + "y")
        elif word.endswith("es"):
            forms.append(word[:-2])
    return forms
