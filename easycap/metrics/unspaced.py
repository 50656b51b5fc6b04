"""Scripts without spaces between words: scores and vocab=word treat a whole clause as one word."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

# Words of these scripts rarely have more characters than this, marks included; unsegmented captions do.
_SCRIPTS = {
    "Japanese": ("\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff々〆ー", 5.0),
    "Chinese": ("\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff", 4.0),
    "Thai": ("\u0e01-\u0e3a\u0e40-\u0e4e", 9.0),
    "Lao": ("\u0e81-\u0ec6\u0ec8-\u0ecd\u0edc-\u0edf", 9.0),
    "Khmer": ("\u1780-\u17d3\u17dc", 10.0),
    "Burmese": ("\u1000-\u103f\u1050-\u109f", 11.0),
    "Tibetan": ("\u0f0b\u0f0c\u0f40-\u0fbc", 9.0),
}
_SEGMENTERS = {"Japanese": "fugashi", "Chinese": "jieba"}
_RUNS = {name: re.compile(f"[{letters}]+") for name, (letters, _) in _SCRIPTS.items()}
_KANA = re.compile("[\u3041-\u30fa]")
# Below this share of the captions a script is ignored, e.g. as a quotation.
_FEW = 0.05


class Unspaced(NamedTuple):
    """A script written without spaces, the share of captions in it, and the mean length of its "words"."""

    script: str
    share: float
    length: float

    def __str__(self) -> str:
        return (
            f"{self.share:.0%} of the captions are {self.script} without spaces between words: a whole clause "
            f"({self.length:.0f} characters) counts as one word, so scores and vocab=word are meaningless. "
            f"{_fit(self.script)} cuts them into words"
        )


def _fit(script: str) -> str:
    fit = _SEGMENTERS.get(script)
    first = f"vocab.segmenter={fit} (--segmenter {fit} of easycap score), or " if fit else ""
    return f"{first}vocab.segmenter=characters"


def scripts_note(captions: Iterable[str]) -> str:
    """Return the scripts of captions, "scripts: Chinese 98 %, Latin 2 %", and the segmenter that fits the first."""
    counts = Counter(map(_main_script, captions))
    total = counts.total() or 1
    shares = [(script, count / total) for script, count in counts.most_common() if script]
    if not shares:
        return "scripts: none"
    listed = ", ".join(
        f"{script} {share:.1%}" if share < 0.995 else f"{script} 100 %" for script, share in shares
    )
    first = shares[0][0]
    return f"scripts: {listed}; {_fit(first) if first in _SCRIPTS else 'vocab.segmenter=spaces'} fits"


def _main_script(caption: str) -> str:
    """The script of most letters of a caption, "" without letters."""
    if caption.isascii():
        return "Latin" if any(map(str.isalpha, caption)) else ""
    if (script := _script(caption)) is not None:
        return script
    counts = Counter(_script_of(character) for character in caption if character.isalpha())
    return counts.most_common(1)[0][0] if counts else ""


@lru_cache(maxsize=20_000)
def _script_of(character: str) -> str:
    return unicodedata.name(character, "unknown").split()[0].title()


def unspaced_scripts(captions: Iterable[str]) -> list[Unspaced]:
    """Return the scripts without spaces that captions use, except where they have been segmented."""
    texts: dict[str, int] = {}
    runs: dict[str, list[int]] = {}
    total = 0
    for caption in captions:
        total += 1
        if caption.isascii() or (script := _script(caption)) is None:
            continue
        texts[script] = texts.get(script, 0) + 1
        runs.setdefault(script, []).extend(len(run) for run in _RUNS[script].findall(caption))
    found = [Unspaced(name, texts[name] / total, sum(runs[name]) / len(runs[name])) for name in texts]
    return [one for one in found if one.share >= _FEW and one.length > _SCRIPTS[one.script][1]]


def _script(caption: str) -> str | None:
    """The script without spaces that a caption is in; Han characters with kana are Japanese."""
    if _KANA.search(caption):
        return "Japanese"
    return next((name for name, run in _RUNS.items() if name != "Japanese" and run.search(caption)), None)
