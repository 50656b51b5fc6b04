"""What is wrong with a draft: words that are missing, that are others, that stand in another order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Damage:
    """Damages a text word by word: of its words the share `drop` goes, of those left the share `replace` becomes what
    `other_word` draws, and of the pairs of neighbours the share `swap`, from left to right and none in two pairs,
    changes places. A text never gets longer. Raises `ValueError` for a share that is none."""

    drop: float
    replace: float
    swap: float
    other_word: Callable[[Random], str]

    def __post_init__(self) -> None:
        for name in ("drop", "replace", "swap"):
            check_share(name, getattr(self, name))

    def __call__(self, text: str, random: Random) -> str:
        kept = [word for word in text.split() if random.random() >= self.drop]
        words = [self.other_word(random) if random.random() < self.replace else word for word in kept]
        place = 0
        while place + 1 < len(words):
            if random.random() < self.swap:
                words[place : place + 2] = words[place + 1], words[place]
                place += 1
            place += 1
        return " ".join(words)


def check_share(name: str, value: float) -> None:
    """Raise `ValueError` unless a setting of `draft.training` is a share."""
    if not 0 <= value <= 1:
        raise ValueError(f"draft.training.{name}={value} must be a share, from 0 to 1")
