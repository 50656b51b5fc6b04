"""Counting n-grams of many sentences at once, as arrays.

An n-gram is a number within its length, made of the (n-1)-gram before its last word, and that word. So the
n-grams of a corpus are a prefix tree in sorted arrays: 8 bytes each, found by binary search.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np

MAX_N = 4


@dataclass(frozen=True)
class Level:
    """All n-grams of one length n: G distinct ones, and one row per sentence and distinct n-gram in it.

    keys (G,), sorted, are parent * V + last word; sentences, grams, counts (rows,) are sorted by sentence.
    """

    keys: np.ndarray
    sentences: np.ndarray
    grams: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class NgramCounts:
    """The n-grams of S sentences: vocabulary {word: number}, lengths (S,) in words, a level per n = 1..4."""

    vocabulary: Mapping[str, int]
    lengths: np.ndarray
    levels: tuple[Level, ...]

    @cached_property
    def tree(self) -> NgramTree:
        """Return the n-grams as a tree."""
        return NgramTree(self.vocabulary, tuple(level.keys for level in self.levels))


@dataclass(frozen=True)
class NgramTree:
    """A set of n-grams: vocabulary word -> number (V words), and the sorted keys (G,) of each n = 1..4."""

    vocabulary: Mapping[str, int]
    keys: tuple[np.ndarray, ...]

    def find(self, other: NgramTree) -> list[np.ndarray]:
        """Return per n the number here (G,) of each n-gram of `other`, -1 where it is not here."""
        words = np.fromiter((self.vocabulary.get(w, -1) for w in other.vocabulary), np.int64)
        found = [words]
        for mine, theirs in zip(self.keys[1:], other.keys[1:], strict=True):
            parents, last = np.divmod(theirs, max(1, len(other.vocabulary)))
            parents, last = found[-1][parents], words[last]
            wanted = np.where((parents < 0) | (last < 0), -1, parents * len(self.vocabulary) + last)
            found.append(positions(mine, wanted))
        return found


def positions(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return where each wanted value (W,) is in the sorted keys (K,), -1 where it is not."""
    if not len(keys):
        return np.full(len(wanted), -1, np.int64)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)


def distinct(values: np.ndarray) -> np.ndarray:
    """Return the distinct values (D,) of integers (W,), sorted.

    As np.unique, which since numpy 2.3 uses a hash table where only the values are wanted: 20 times slower here.
    """
    values = np.sort(values)
    return values[np.concatenate([np.ones(len(values[:1]), bool), values[1:] != values[:-1]])]


def count_ngrams(sentences: Sequence[Sequence[str]]) -> NgramCounts:
    """Count the n-grams, n = 1..4, of S tokenised sentences; their numbers do not depend on the order."""
    words = sorted(set(chain.from_iterable(sentences)))
    if any(word.split() != [word] for word in words):
        # "22 3/4" is one token with a no-break space inside; the COCO scorers split it again.
        return count_ngrams([" ".join(tokens).split() for tokens in sentences])
    vocabulary = {word: number for number, word in enumerate(words)}
    lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
    numbers = np.fromiter(map(vocabulary.__getitem__, chain.from_iterable(sentences)), np.int64)
    owners = np.repeat(np.arange(len(sentences)), lengths)
    return NgramCounts(vocabulary, lengths, tuple(_levels(numbers, owners, np.cumsum(lengths)[owners])))


def _levels(words: np.ndarray, owners: np.ndarray, ends: np.ndarray) -> Iterator[Level]:
    """words, owners (sentence) and ends (of the sentence) are per running word (W,)."""
    num_words = int(words.max(initial=-1)) + 1
    yield _level(np.arange(num_words), owners, words)
    grams = words
    for n in range(2, MAX_N + 1):
        starts = np.flatnonzero(np.arange(len(words)) + n <= ends)
        keys, numbers = np.unique(grams[starts] * num_words + words[starts + n - 1], return_inverse=True)
        grams = np.full(len(words), -1, np.int64)
        grams[starts] = numbers
        yield _level(keys, owners[starts], numbers)


def _level(keys: np.ndarray, owners: np.ndarray, grams: np.ndarray) -> Level:
    size = max(1, len(keys))
    rows, counts = np.unique(owners * size + grams, return_counts=True)
    return Level(keys, rows // size, rows % size, counts)
