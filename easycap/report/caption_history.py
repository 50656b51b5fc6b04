"""What captions show at a glance: how they changed over the epochs, and which ones are most frequent."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from easycap.runs.samples import Sample

MAX_HISTORIES = 12
MAX_STAGES = 10


@dataclass(frozen=True)
class Stage:
    """A caption and the epochs it stood for; `words` are (text, changed since the stage before)."""

    first: int
    last: int
    words: tuple[tuple[str, bool], ...]
    skipped: int = 0

    @property
    def epochs(self) -> str:
        """Return the epochs in which it was generated, as a text."""
        return str(self.first) if self.first == self.last else f"{self.first}–{self.last}"


@dataclass(frozen=True)
class History:
    """The captions one image got; `skipped` in a stage counts those left out before it."""

    sample: Sample
    stages: tuple[Stage, ...]


def histories(epochs: Mapping[int, Sequence[Sample]]) -> list[History]:
    """Return the caption history of the first MAX_HISTORIES images, equal captions in a row shown once."""
    by_image: dict[str, list[tuple[int, Sample]]] = {}
    for epoch in sorted(epochs):
        for sample in epochs[epoch]:
            by_image.setdefault(sample.id, []).append((epoch, sample))
    return [_history(seen) for seen in list(by_image.values())[:MAX_HISTORIES]]


def repeated(captions: Sequence[str], *, limit: int = 5) -> list[tuple[str, int, float]]:
    """Return (caption, count, share) of the captions given to more than one image, most frequent first."""
    common = Counter(captions).most_common(limit)
    return [(caption, count, count / len(captions)) for caption, count in common if count > 1]


def _history(seen: Sequence[tuple[int, Sample]]) -> History:
    runs: list[tuple[int, int, str]] = []
    for epoch, sample in seen:
        if runs and runs[-1][2] == sample.caption:
            runs[-1] = (runs[-1][0], epoch, sample.caption)
        else:
            runs.append((epoch, epoch, sample.caption))
    stages, before, previous = [], "", -1
    for index in _spread(len(runs), MAX_STAGES):
        first, last, caption = runs[index]
        stages.append(Stage(first, last, _marked(before, caption), index - previous - 1))
        before, previous = caption, index
    return History(seen[-1][1], tuple(stages))


def _spread(count: int, limit: int) -> list[int]:
    """Indices of at most `limit` of `count` things, the first and the last among them."""
    if count <= limit:
        return list(range(count))
    return sorted({round(i * (count - 1) / (limit - 1)) for i in range(limit)})


def _marked(before: str, caption: str) -> tuple[tuple[str, bool], ...]:
    old, new = before.split(), caption.split()
    if not old:
        return tuple((word, False) for word in new)
    kept: set[int] = set()
    for block in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_matching_blocks():
        kept.update(range(block.b, block.b + block.size))
    return tuple((word, index not in kept) for index, word in enumerate(new))
