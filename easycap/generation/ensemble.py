"""An ensemble: several captioners that write one caption together, by the mean of their probabilities of each word."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Self, cast

import torch

from easycap.types import CaptionModel, Decoder, Features, Inputs, Memory, Output, State

Autocast = Callable[[], AbstractContextManager]


@dataclass(frozen=True, slots=True)
class EnsembleInputs(Inputs):
    """What each member of an ensemble gets of the same N images; `images` and `context` are the first member's."""

    members: tuple[Inputs, ...] = ()

    @staticmethod
    def of(members: Sequence[Inputs]) -> EnsembleInputs:
        """Return the inputs of an ensemble from those of its members, in their order."""
        return EnsembleInputs(members[0].images, members[0].context, tuple(members))

    def to(self, device: torch.device | str) -> EnsembleInputs:
        """Return the same on a device."""
        return EnsembleInputs.of([member.to(device) for member in self.members])

    def first(self, count: int) -> EnsembleInputs:
        """Return those of the first `count` images."""
        return EnsembleInputs.of([member.first(count) for member in self.members])


class EnsembleMemory(NamedTuple):
    """What the decoders read; `tokens`, `mask` and `segments` are the first member's."""

    tokens: torch.Tensor
    mask: torch.Tensor
    segments: dict[str, slice]
    members: tuple[Memory, ...]


@dataclass(frozen=True)
class _EnsembleState:
    members: tuple[State, ...]

    def select(self, rows: torch.Tensor) -> _EnsembleState:
        return _EnsembleState(tuple(state.select(rows) for state in self.members))


class EnsembleDecoder:
    """Decoders of one vocabulary as one: log-probabilities of the mean of their probabilities, for any decoding method.

    Its maximum length is the smallest of theirs. `autocasts` make the contexts that the members compute in.
    """

    prefix = False

    def __init__(self, decoders: Sequence[Decoder], autocasts: Sequence[Autocast]) -> None:
        self.decoders, self.autocasts = tuple(decoders), tuple(autocasts)
        self.max_length = min(decoder.max_length for decoder in self.decoders)
        self.memory_dim = sum(decoder.memory_dim for decoder in self.decoders)

    @property
    def training(self) -> bool:
        """Whether dropout is on in one of them."""
        return any(getattr(decoder, "training", False) for decoder in self.decoders)

    def start(self, memory: EnsembleMemory) -> _EnsembleState:
        """Once per image, each decoder on its own memory."""
        states = []
        for decoder, autocast, of in zip(self.decoders, self.autocasts, memory.members, strict=True):
            with autocast():
                states.append(decoder.start(of))
        return _EnsembleState(tuple(states))

    def step(self, words: torch.Tensor, state: _EnsembleState) -> tuple[torch.Tensor, _EnsembleState]:
        """words (B,) -> log-probabilities (B,V) and the next state. Consumes `state`."""
        logits, states = [], []
        for decoder, autocast, of in zip(self.decoders, self.autocasts, state.members, strict=True):
            with autocast():
                found, after = decoder.step(words, of)
            logits.append(found)
            states.append(after)
        return _log_mean(logits), _EnsembleState(tuple(states))

    def __call__(self, words: torch.Tensor, state: _EnsembleState) -> Output:
        """words (B,T), the first is bos -> log-probabilities (B,T,V), without attention. Consumes `state`."""
        logits = []
        for decoder, autocast, of in zip(self.decoders, self.autocasts, state.members, strict=True):
            with autocast():
                logits.append(decoder(words, of).logits)
        return Output(_log_mean(logits))


def _log_mean(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """Logits (...,V) of several models -> the logarithm of the mean of their probabilities."""
    log_probs = torch.stack([one.float().log_softmax(-1) for one in logits])
    return log_probs.logsumexp(0) - math.log(len(logits))


class Ensemble:
    """Captioners of one vocabulary as one, which generation takes in the place of a captioner.

    Encoders, image tokens, text conditions and decoders may differ. `autocasts`, one for each, make the contexts that
    the members compute in; by default they compute in that of the caller.
    """

    def __init__(self, members: Sequence[CaptionModel], autocasts: Sequence[Autocast] | None = None) -> None:
        self.members = tuple(members)
        self.autocasts = tuple(autocasts) if autocasts else (nullcontext,) * len(self.members)

    @property
    def decoder(self) -> Decoder:
        """Return the decoders as one."""
        decoders = EnsembleDecoder([member.decoder for member in self.members], self.autocasts)
        return cast(Decoder, decoders)  # it starts with the memory that `build_memory` makes

    @property
    def training(self) -> bool:
        """Whether a member is in training mode."""
        return any(member.training for member in self.members)

    def features_of(self, inputs: Inputs) -> list[Features]:
        """Return the features of each member's view of N images."""
        assert isinstance(inputs, EnsembleInputs)
        found = []
        for member, autocast, of in zip(self.members, self.autocasts, inputs.members, strict=True):
            with autocast():
                found.append(member.features_of(of))
        return found

    def build_memory(self, inputs: Inputs, features: Sequence[Features] | None = None) -> Memory:
        """Return the memories of N images; `features` are those of `features_of` if they were encoded before."""
        assert isinstance(inputs, EnsembleInputs)
        memories = []
        of_members = zip(self.members, self.autocasts, inputs.members, strict=True)
        for number, (member, autocast, of) in enumerate(of_members):
            with autocast():
                memories.append(member.build_memory(of, None if features is None else features[number]))
        first = memories[0]
        return cast(Memory, EnsembleMemory(first.tokens, first.mask, first.segments, tuple(memories)))

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield the weights of all members."""
        for member in self.members:
            yield from member.parameters()

    def fold_encoder(self, num_images: int) -> None:
        """Fold BatchNorm in the encoders, where that pays off for so many images."""
        for member in self.members:
            member.fold_encoder(num_images)

    def train(self, mode: bool = True) -> Self:
        """Switch all members to training mode."""
        for member in self.members:
            member.train(mode)
        return self

    def eval(self) -> Self:
        """Switch all members to eval mode."""
        return self.train(False)
