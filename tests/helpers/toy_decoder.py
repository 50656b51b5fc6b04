"""A decoder small enough to enumerate, which counts what it is asked to do."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from easycap.metrics import DocumentFrequencies
from easycap.registry import construct
from easycap.types import Generator, Memory

PAD, BOS, EOS, UNK = 0, 1, 2, 3
IDS = {"pad_id": PAD, "bos_id": BOS, "eos_id": EOS, "unk_id": UNK}
SETTINGS = {
    "max_length": None,
    "min_length": 0,
    "no_repeat_ngram": 0,
    "may_repeat": (),
    "allow_unk": False,
}


@dataclass(frozen=True)
class ToyVocabulary:
    """Words are numbers: "0" is the first id after the special ones."""

    pad_id: int = PAD
    bos_id: int = BOS
    eos_id: int = EOS
    unk_id: int = UNK

    def encode(self, text: str) -> list[int]:
        return [4 + int(word) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        ids = list(ids)[: list(ids).index(self.eos_id)] if self.eos_id in ids else ids
        return " ".join(str(index - 4) for index in ids if index >= 4)


def made(component: Callable[..., Generator], ids: Any = None, **settings: Any) -> Generator:
    """A way of decoding for the toy vocabulary, with `SETTINGS` unless others are given."""
    supplied = {"vocabulary": ids or ToyVocabulary(), "document_frequencies": document_frequencies}
    return construct(component, SETTINGS | settings, {**supplied, "nearest_captions": nearest_captions})


def nearest_captions(
    features: torch.Tensor, count: int, whiten: int | None = None
) -> list[list[tuple[str, float]]]:
    """Features (N,1), each the number of a word -> captions of similar images and their cosines, `count` for each."""
    return [
        [(f"{int(word)} {number}", 0.9 - 0.4 * number) for number in range(count)]
        for (word,) in features.tolist()
    ]


def document_frequencies() -> DocumentFrequencies:
    """Of two training images whose captions have some of the toy vocabulary's words."""
    return DocumentFrequencies.from_references([["0 1 2", "0 2"], ["0 3", "3 0 1"]], source="train")


@dataclass(frozen=True)
class ToyState:
    tables: torch.Tensor  # (B,V,V): logits of the next word by the last word
    words: tuple[torch.Tensor, ...]  # the words read so far, each (B,)

    def select(self, rows: torch.Tensor) -> ToyState:
        return ToyState(self.tables[rows], tuple(column[rows] for column in self.words))


@dataclass
class ToyDecoder:
    """Memory is a table of logits per image (N,V,V); a further word changes all logits a little.

    `rows` are the batch sizes of its steps, `num_starts` how often an image was read.
    """

    vocab_size: int
    max_length: int
    drift_size: float = 2.0
    memory_dim: int = 0
    rows: list[int] = field(default_factory=list)
    num_starts: int = 0

    def __post_init__(self) -> None:
        self.memory_dim = self.vocab_size
        self.drift = (
            torch.randn(self.max_length, self.vocab_size, generator=torch.manual_seed(99)) * self.drift_size
        )

    def start(self, memory: Memory) -> ToyState:
        self.num_starts += len(memory.tokens)
        return ToyState(memory.tokens, ())

    def step(self, words: torch.Tensor, state: ToyState) -> tuple[torch.Tensor, ToyState]:
        self.rows.append(len(words))
        logits = state.tables[torch.arange(len(words)), words] + self.drift[len(state.words)]
        return logits, ToyState(state.tables, (*state.words, words))

    def log_prob(self, table: torch.Tensor, caption: tuple[int, ...]) -> float:
        """The sum of the log-probabilities of the words of one caption."""
        total, last = 0.0, BOS
        for t, word in enumerate(caption):
            total += float((table[last] + self.drift[t]).log_softmax(0)[word])
            last = word
        return total

    def captions(self) -> list[tuple[int, ...]]:
        """Every caption without pad, bos and unk: ended by eos, or of max_length words."""
        words = range(4, self.vocab_size)
        ended = [
            (*caption, EOS)
            for length in range(self.max_length)
            for caption in itertools.product(words, repeat=length)
        ]
        return ended + list(itertools.product(words, repeat=self.max_length))


def tables(num_images: int, vocab_size: int, *, seed: int = 0, sharpness: float = 2.0) -> Memory:
    tokens = sharpness * torch.randn(
        num_images, vocab_size, vocab_size, generator=torch.Generator().manual_seed(seed)
    )
    mask = torch.ones(num_images, vocab_size, dtype=torch.bool)
    return Memory(tokens, mask, {"image": slice(0, vocab_size)})


def without_padding(words: torch.Tensor) -> list[tuple[int, ...]]:
    return [tuple(word for word in row if word != PAD) for row in words.tolist()]
