"""Captions cut into words: by their spaces, or by a segmenter for scripts that are written without spaces.

Captions stay as they are written; vocabularies and scores see their words. `characters` is the simplest: every
character is a word. `jieba` is what papers on Chinese captions use (AI Challenger, COCO-CN), MeCab, here with the
dictionary unidic-lite by fugashi, those on Japanese ones.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib.metadata import version
from itertools import chain

from easycap.errors import UserError
from easycap.utils.extras import check_extra

# Characters of the scripts that are written without spaces between words.
UNSPACED = (
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f々〆\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ec6\u0ec8-\u0ecd\u0edc-\u0edf\u1780-\u17d3\u17dc\u1000-\u103f\u1050-\u109f"
    "\u0f0b\u0f0c\u0f40-\u0fbc"
)
_AROUND = f"[{UNSPACED}\u3000-\u303f\uff01-\uff0f\uff1a-\uff20]"
# Spaces that separate nothing: one side is of such a script, or of its punctuation.
_IDLE_SPACES = re.compile(rf"(?<={_AROUND})\s+|\s+(?={_AROUND})")
_CHARACTER = re.compile(f"[{UNSPACED}]")
_TAG = re.compile("(<[a-z]+>)")  # what stands for an unknown word
_EXTRAS = {"jieba": "chinese", "fugashi": "japanese"}


@dataclass(frozen=True)
class Segmenter:
    """Puts spaces between the words of captions.

    `signature` names it in those of scores, "" for captions that have spaces.
    """

    name: str
    signature: str
    cut: Callable[[str], str]

    def __call__(self, text: str) -> str:
        """Return a caption with a space between any two words; spaces that it already has change nothing."""
        return text if self is SPACES else _cut(self, text)

    def __reduce__(self) -> tuple[Callable[[str], Segmenter], tuple[str]]:
        # A process that loads data gets its own.
        return segmenter, (self.name,)

    def join(self, words: list[str]) -> str:
        """Return words as one writes them: without spaces where the script has none."""
        text = " ".join(words)
        return text if self is SPACES else without_idle_spaces(text)


SPACES = Segmenter("spaces", "", lambda text: text)


@lru_cache(maxsize=200_000)
def _cut(segmenter: Segmenter, text: str) -> str:
    cut = segmenter.cut
    parts = _TAG.split(without_idle_spaces(text))
    return " ".join(chain.from_iterable([part] if _TAG.match(part) else cut(part).split() for part in parts))


def without_idle_spaces(text: str) -> str:
    """Return text without spaces beside characters of scripts that have none, so that a segmented caption and the same
    caption as it is written are one.
    """
    return _IDLE_SPACES.sub("", text)


@cache
def segmenter(name: str) -> Segmenter:
    """Return a segmenter; raises `UserError` for one that does not exist and for a missing package."""
    makers = {"spaces": lambda: SPACES, "characters": _characters, "jieba": _jieba, "fugashi": _fugashi}
    if name not in makers:
        close = get_close_matches(name, makers, n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(f"segmenter {name!r} does not exist; {meant}allowed: {', '.join(makers)}")
    if name in _EXTRAS:
        check_extra(_EXTRAS[name], f"the segmenter {name}")
    return makers[name]()


def _characters() -> Segmenter:
    return Segmenter("characters", "characters", _spaced)


def _spaced(text: str) -> str:
    """Every character of a script without spaces by itself, with the marks that belong to it."""
    pieces: list[str] = []
    for character in text:
        mark = unicodedata.category(character).startswith("M")
        if pieces and (mark or not (_CHARACTER.match(character) or _CHARACTER.match(pieces[-1]))):
            pieces[-1] += character
        else:
            pieces.append(character)
    return " ".join(pieces)


def _jieba() -> Segmenter:
    jieba = importlib.import_module("jieba")
    jieba.setLogLevel("WARNING")
    return Segmenter("jieba", f"jieba-{version('jieba')}", lambda text: " ".join(jieba.cut(text)))


def _fugashi() -> Segmenter:
    fugashi, unidic = importlib.import_module("fugashi"), importlib.import_module("unidic_lite")
    tagger = fugashi.Tagger(f'-d "{unidic.DICDIR}" -r "{unidic.DICDIR}/mecabrc" -Owakati')
    name = f"fugashi-{version('fugashi')}+unidic-lite-{version('unidic-lite')}"
    return Segmenter("fugashi", name, tagger.parse)


def segmenter_in(signature: str) -> Segmenter:
    """Return the segmenter that a score's signature names; raises `UserError` if it is not installed."""
    part = next((part for part in signature.split("|") if part.startswith("tok:") and "+" in part), "")
    name = part.removeprefix("tok:").partition("+")[0].partition("-")[0]
    return segmenter(name) if name else SPACES
