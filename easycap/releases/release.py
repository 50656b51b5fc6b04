"""What the files of a release hold, in easycap's terms, and what every system's module uses to say so."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from easycap.errors import UserError
from easycap.releases.torch_files import ReleasedFile
from easycap.vocab.word import WordVocabulary

Weights = dict[str, torch.Tensor]
# A probability of 0 for a word that a release does not have: exp(-10000) is 0 in every precision.
NO_WORD = -1e4


@dataclass(frozen=True)
class Release:
    """A model to be imported.

    `overrides` are those of `easycap train` that make its config, `weights` those of our captioner. A `vocabulary` of
    None is that of the config, of which the release has `num_words`, the first of its ids. `kept` are the parts of our
    captioner that the files do not hold, which stay as the config builds them. `not_known` are sentences on what the
    files do not say.
    """

    model: str
    overrides: Sequence[str]
    vocabulary: WordVocabulary | None
    weights: Weights
    not_known: tuple[str, ...] = ()
    num_words: int | None = None
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class System:
    """A repository whose released weights can be imported.

    `recognise` returns the name of the model whose weights a file's content is, None for other contents; `read`
    returns the model of files, or raises `UserError`.
    """

    name: str
    what: str
    files: str
    recognise: Callable[[Any], str | None]
    read: Callable[[Sequence[ReleasedFile]], Release]


def weights_among(files: Sequence[ReleasedFile], system: System) -> ReleasedFile:
    """Return the file that holds a system's weights; `UserError` if none or several do."""
    found = [file for file in files if system.recognise(file.content) is not None]
    if len(found) != 1:
        names = ", ".join(str(file.path) for file in files)
        how_many = "none" if not found else "more than one"
        raise UserError(
            f"{how_many} of {names} holds weights of {system.name}: use easycap import {system.name} {system.files}"
        )
    return found[0]


def vocabulary_among(
    files: Sequence[ReleasedFile], system: System, words_of: Callable[[Any], list[str] | None]
) -> tuple[ReleasedFile, list[str]]:
    """Return the file with a system's vocabulary and its words; `UserError` if there is none."""
    for file in files:
        if (words := words_of(file.content)) is not None:
            if not words or not all(isinstance(word, str) for word in words):
                raise UserError(f"{file.path} has a vocabulary without words, or one that is not of words")
            return file, words
    others = [str(file.path) for file in files if system.recognise(file.content) is None]
    what = f"no vocabulary is in {', '.join(others)}" if others else "the vocabulary is missing"
    raise UserError(
        f"{what}: use easycap import {system.name} {system.files} (without it, words are only numbers)"
    )


def check_vocabulary_size(vocabulary: ReleasedFile, words: int, weights: ReleasedFile, rows: int) -> None:
    """Raise `UserError` unless a vocabulary is as large as the word table of the weights."""
    if words != rows:
        raise UserError(
            f"{vocabulary.path} has {words:,} words, but the weights of {weights.path} are for {rows:,}: give the "
            "vocabulary they were trained with"
        )


def renamed(
    weights: Mapping[str, torch.Tensor], names: Sequence[tuple[str, str]], file: ReleasedFile
) -> Weights:
    """Return weights under our names, by the first pattern that matches the whole of a name; "" drops it.

    Raises `UserError` for a name that no pattern matches.
    """
    found: Weights = {}
    for name, tensor in weights.items():
        for pattern, ours in names:
            if match := re.fullmatch(pattern, name):
                if ours:
                    found[match.expand(ours)] = tensor
                break
        else:
            raise UserError(
                f"{file.path} has a weight {name} that this model does not have; is it from another version?"
            )
    return found


def need(weights: Mapping[str, torch.Tensor], name: str, file: ReleasedFile) -> torch.Tensor:
    """Return a weight; `UserError` if it is missing."""
    if name not in weights:
        raise UserError(f"{file.path} lacks the weight {name}: download it again")
    return weights[name]


def count(weights: Mapping[str, torch.Tensor], pattern: str) -> int:
    """Return how many numbers the group of a pattern takes in the names of weights."""
    return len({match[1] for name in weights if (match := re.match(pattern, name))})
