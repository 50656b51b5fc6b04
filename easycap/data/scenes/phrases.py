"""A caption's words cut into known phrases: the first half of understanding it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from easycap.data.scenes.lexicon import (
    ACTIONS,
    DAYS,
    GARMENTS,
    LEAST_IN_GROUP,
    NOUNS,
    PLACE_WEATHER,
    PLACES,
    RELATIONS,
    SIZE_WORDS,
    WEATHER,
)
from easycap.data.scenes.tables import COLOURS

# "near" may be said of anything that stands close, not only beside.
_NEAR = frozenset({"beside", "in front of", "behind", "under"})


class NotACaption(Exception):
    """The words do not form a caption of a scene."""


class Chunk(NamedTuple):
    """A phrase of the caption: its type, what it means, and the caption's words for it."""

    type: str
    value: Any
    text: str


class Number(NamedTuple):
    """How many: from `low` to `high`; `stated` when the caption says it in more than an article."""

    low: int
    high: int
    stated: bool


def chunks(words: list[str]) -> Iterator[Chunk]:
    """Cut into known phrases, the longest first; `NotACaption` at any other word."""
    known, longest = _phrases()
    at = 0
    while at < len(words):
        for length in range(min(longest, len(words) - at), 0, -1):
            text = " ".join(words[at : at + length])
            if text in known:
                yield Chunk(*known[text], text)
                at += length
                break
        else:
            raise NotACaption(words[at])


@lru_cache(maxsize=1)
def _phrases() -> tuple[dict[str, tuple[str, Any]], int]:
    known: dict[str, tuple[str, Any]] = {
        "and": ("and", None),
        "with": ("with", None),
        "in": ("wear", None),
        "wearing": ("wear", None),
        "is": ("be", False),
        "are": ("be", True),
        "there is": ("there", False),
        "there are": ("there", True),
        "in the sky": ("sky", None),
        "it": ("it", None),
        "a": ("number", Number(1, 1, False)),
        "an": ("number", Number(1, 1, False)),
        "two": ("number", Number(2, 2, True)),
        "a couple of": ("number", Number(2, 2, True)),
        "a pair of": ("number", Number(2, 2, True)),
        "three": ("number", Number(3, 3, True)),
        "four": ("number", Number(4, 4, True)),
        "a group of": ("number", Number(LEAST_IN_GROUP, 99, True)),
    }
    known |= {colour: ("colour", colour) for colour in COLOURS}
    known |= {word: ("size", size) for size, words in SIZE_WORDS.items() for word in words}
    known |= {words: ("action", action) for action, phrases in ACTIONS.items() for words in phrases}
    for name, phrases in RELATIONS.items():
        for words in phrases:
            if words != "flying":  # an action too: the parser tells which
                known[words] = ("relation", _NEAR if words == "near" else frozenset({name}))
    for setting, (phrases, names) in PLACES.items():
        known |= {words: ("place", setting) for words in phrases}
        known |= {name: ("scene", setting) for name in names}
    known |= {words: ("weather", weather) for weather, phrases in WEATHER.items() for words in phrases}
    known |= {day: ("day", weather) for weather, day in DAYS.items()}
    known |= {word: ("place weather", weather) for weather, word in PLACE_WEATHER.items()}
    known |= {word: ("garment", (several, kinds)) for word, several, kinds in _garments()}
    known |= _nouns()
    return known, max(len(text.split()) for text in known)


def _garments() -> Iterator[tuple[str, bool, frozenset[str]]]:
    for several in (False, True):
        for word in {forms[several] for forms in GARMENTS.values()}:
            yield word, several, frozenset(kind for kind, forms in GARMENTS.items() if forms[several] == word)


def _nouns() -> dict[str, tuple[str, Any]]:
    """Each noun with the kinds it may mean and whether it is singular, plural or (sheep) either."""
    meanings: dict[str, tuple[set[str], set[bool]]] = defaultdict(lambda: (set(), set()))
    for kind, forms in NOUNS.items():
        for singular, plural in forms:
            for several, noun in enumerate((singular, plural)):
                meanings[noun][0].add(kind)
                meanings[noun][1].add(bool(several))
    return {noun: ("noun", (frozenset(kinds), frozenset(forms))) for noun, (kinds, forms) in meanings.items()}
