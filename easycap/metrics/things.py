"""Which things a caption names, against those annotated in its image: precision, recall and CHAIR."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from easycap.metrics.corpus import captions_by_id, normal_id
from easycap.metrics.intervals import FromStatistics
from easycap.metrics.tokenizer import tokenize
from easycap.types import Score

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
    synonyms: Mapping[str, Iterable[str]] | None = None,
) -> dict[str, Score]:
    """Return "things precision", "things recall", "CHAIR-i" and "CHAIR-s" (Rohrbach et al., EMNLP 2018), 0..1.

    `things` {id: names} is what each image shows (tags, object categories); a caption's words count as named
    things if any image has them; `synonyms` {name: words} adds words for a name. Raises `ValueError` for an
    image without `things`.
    """
    texts = captions_by_id(captions)
    things = {normal_id(image_id): names for image_id, names in things.items()}
    missing = sorted(texts.keys() - things.keys())
    if missing:
        raise ValueError(f"{len(missing)} images have no annotated things, e.g. {missing[0]!r}")
    ids = sorted(texts)
    names = _lexicon({_singular(n) for image_id in ids for n in things[image_id]}, synonyms or {})
    rows = [_counts(tokenize(texts[i]), {_singular(n) for n in things[i]}, names) for i in ids]
    text = f"v:1|things:{len(set(names.values()))}|synonyms:{len(names) - len(set(names.values()))}"
    return _scores(ids, np.array(rows, dtype=float), f"{text}|images:{len(ids)}")


def _scores(ids: list[str], counts: np.ndarray, text: str) -> dict[str, Score]:
    """counts (N, 5): named, of them in the image, in the image, 1 if one is not there, 1."""
    columns = {"things precision": (1, 0), "things recall": (1, 2), "CHAIR-i": (5, 0), "CHAIR-s": (3, 4)}
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


def _counts(words: Sequence[str], shown: set[str], names: Mapping[tuple[str, ...], str]) -> list[int]:
    named = _named(words, names)
    right = len(named & shown)
    return [len(named), right, len(shown), int(right < len(named)), 1]


def _named(words: Sequence[str], names: Mapping[tuple[str, ...], str]) -> set[str]:
    """The things that words name, longest name first: a "traffic light" is no "light"."""
    longest = max(map(len, names), default=0)
    found, start = set(), 0
    while start < len(words):
        for size in range(min(longest, len(words) - start), 0, -1):
            key = (*words[start : start + size - 1], _singular(words[start + size - 1]))
            if key in names:
                found.add(names[key])
                start += size
                break
        else:
            start += 1
    return found


def _lexicon(things: set[str], synonyms: Mapping[str, Iterable[str]]) -> dict[tuple[str, ...], str]:
    names = {tuple(tokenize(thing)): thing for thing in things}
    for thing, words in synonyms.items():
        for word in words:
            names.setdefault(tuple(_singular(word).split()), _singular(thing))
    return names


def _singular(name: str) -> str:
    """Return the name in lower case with its last word in the singular, by rule: dogs, buses, puppies, men."""
    head, _, word = name.lower().rpartition(" ")
    if word in _IRREGULAR:
        word = _IRREGULAR[word]
    elif word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("ses", "xes", "zes", "ches", "shes")) and len(word) > 4:
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        word = word[:-1]
    return f"{head} {word}".strip()
