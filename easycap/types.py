"""The contracts between rooms: what flows through easycap, and the protocols of its swappable parts.

Shape legend used everywhere: N images, R regions or grid cells, C encoder channels, K image tokens, T words,
M memory slots, D memory width, B rows (captions; B = N x captions per image), V vocabulary size.

torch is imported for type checkers only: the metrics and report rooms use this file without loading it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    import torch
    from tokenizers import Tokenizer

# ---------------------------------------------------------------------------------------------- data


class ImageSource(Protocol):
    """Where the pixels of one image come from: a file, or a row of a packed array."""

    def load(self, at_least: int | None = None) -> PIL.Image.Image:
        """Return the upright RGB image, at a smaller size with at least so many pixels on the short side if that is
        quicker; raises `OSError` or `ValueError` naming the file if it cannot."""

    def array(self, at_least: int | None = None) -> np.ndarray:
        """Return the pixels (H,W,3), uint8, of what `load` returns."""


@dataclass(frozen=True, slots=True)
class Example:
    """One image with everything known about it.

    `tags` are words for things and actions in the image. `annotations` is whatever structured truth the source
    has (a scene graph, object categories); scorers that know the source read it, nothing else does.
    """

    id: str
    image: ImageSource
    references: tuple[str, ...]
    tags: tuple[str, ...] = ()
    annotations: Any = None


class Finding(NamedTuple):
    """Something wrong with a source's data: in which split, with which image id or file, and what.

    `left_out` says whether the image or annotation is left out for it; else it was repaired, as `what` says.
    """

    split: str
    id: str
    file: str
    what: str
    left_out: bool


class Dataset(NamedTuple):
    """A source's splits, the names of registered scorers that understand its annotations, and what is wrong with it."""

    name: str
    splits: dict[str, list[Example]]
    scorers: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


class TextSource(Protocol):
    """Where the words beside an image come from, its tags or a draft of its caption: at most `max_words` of them.

    `signature` says it in a few words, and that they are an oracle's where they come from the image's own references
    in testing too: a score that was helped by them is no score of a captioner.
    """

    max_words: int
    signature: str

    def prepare(self, examples: Sequence[Example], *, training: bool) -> None:
        """Called with examples, to be trained on or tested, before their words are asked for, maybe by processes that
        load images: what takes long or needs a model is done here. Raises `ValueError` for what is missing."""

    def __call__(self, example: Example, *, epoch: int | None, said: Sequence[str]) -> str:
        """Return the words as text. `epoch` counts from 0 and is None in testing; `said` are the captions that the
        model learns to say of the image now."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a captioner gets of N images: images (N,3,H,W) uint8, or their features (N,R,C), made before and padded with
    rows of NaN; and the words beside them, {segment: ids (N,M), padded with the pad id}."""

    images: torch.Tensor
    context: dict[str, torch.Tensor] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Inputs:
        context = {name: ids.to(device, non_blocking=True) for name, ids in self.context.items()}
        return Inputs(self.images.to(device, non_blocking=True), context)

    def first(self, count: int) -> Inputs:
        """Return those of the first `count` images."""
        return Inputs(self.images[:count], {name: ids[:count] for name, ids in self.context.items()})


@dataclass(slots=True)
class Batch:
    """N images and B captions of them.

    words (B,T) starts with bos; targets (B,T) is words shifted left and ends with eos; both are padded with the pad
    id; rows (B,) says which image a caption belongs to.
    """

    ids: list[str]
    inputs: Inputs
    words: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        words, targets, rows = (
            t.to(device, non_blocking=True) for t in (self.words, self.targets, self.rows)
        )
        return Batch(self.ids, self.inputs.to(device), words, targets, rows)


class Preprocessing(NamedTuple):
    """What an encoder expects: square input of `size` pixels, cut from the centre `crop` share of the image's
    short side, and per-channel mean and std for pixel values scaled to 0..1."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: float = 1.0
    interpolation: str = "bilinear"


class View(Protocol):
    """What a model gets of images: pixels, a random part of them, or features from a cache or made elsewhere."""

    def begin_epoch(self, epoch: int) -> None:
        """Called before an epoch (from 0) is loaded."""

    def of(self, example: Example) -> torch.Tensor:
        """Return pixels (3,S,S) uint8 or features (R,C)."""


class Vocabulary(Protocol):
    """Text <-> ids with distinct pad, bos and eos. It is saved beside a checkpoint and loads itself from there."""

    pad_id: int
    bos_id: int
    eos_id: int
    unk_id: int | None

    def __len__(self) -> int: ...
    def encode(self, text: str) -> list[int]:
        """Return word ids without special tokens."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text up to the first eos; pad and bos are skipped, unk is <unk>."""

    def pieces(self, tokenizer: Tokenizer) -> list[list[int]]:
        """Return each id as ids of `tokenizer`, a language model's; an empty list for what it cannot say."""

    def save(self, folder: Any) -> None: ...


# --------------------------------------------------------------------------------------------- models


class Features(NamedTuple):
    """What an encoder sees: cells (N,R,C), mask (N,R) with True for real cells, grid (h,w) when cells form one."""

    cells: torch.Tensor
    mask: torch.Tensor
    grid: tuple[int, int] | None


class Memory(NamedTuple):
    """What a decoder looks at: tokens (N,M,D), mask (N,M), segments {"tags" | "image" | "draft": slice}."""

    tokens: torch.Tensor
    mask: torch.Tensor
    segments: dict[str, slice]


class Output(NamedTuple):
    """logits (B,T,V) for word positions only, attention (B,T,M) where the decoder has one, named extra losses."""

    logits: torch.Tensor
    attention: torch.Tensor | None = None
    losses: dict[str, torch.Tensor] = {}  # noqa: B006  never mutated


class Encoder(Protocol):
    """A view of the image. `channels` is C, `grid` the (h,w) of its cells at its own input size or None.

    `preprocessing` None: it sees no images, batches bring its features.
    """

    channels: int
    grid: tuple[int, int] | None
    preprocessing: Preprocessing | None

    def __call__(self, images: torch.Tensor) -> Features:
        """Normalised images (N,3,H,W) -> Features."""


class ImageTokens(Protocol):
    """Turns a view of the image into the decoder's image tokens.

    `grid` is the (h,w) of the tokens where each stands for a place in the image, None where they do not.
    """

    grid: tuple[int, int] | None

    def __call__(self, features: Features) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens (N,K,D) and mask (N,K)."""


class State(Protocol):
    """What a decoder remembers of the memory and of the words so far, for B rows."""

    def select(self, rows: torch.Tensor) -> State:
        """Return a NEW state of the given rows (B',): reorders beams, repeats an image for its captions."""


class Decoder(Protocol):
    """Words given memory. `memory_dim` is the width D it wants, `max_words` the longest T it can take.

    A decoder with `prefix` reads memory slot by slot as if it were words, so that their order matters; the others look
    at all of it. `word_table` are its vectors of words, ids (...) -> (...,E); E is D where it has `prefix`.
    """

    memory_dim: int
    max_words: int
    prefix: bool
    word_table: torch.nn.Embedding

    def start(self, memory: Memory) -> State:
        """Once per image: everything that does not depend on words."""

    def __call__(self, words: torch.Tensor, state: State) -> Output:
        """words (B,T), the first is bos -> Output; logits[:, t] predicts words[:, t+1] or eos. Consumes `state`."""

    def step(self, words: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """words (B,) -> logits (B,V) and the next state. Consumes `state`."""


class Tagger(Protocol):
    """Tags of an image from its features; `max_words` is the longest row T of them that it learns from."""

    max_words: int

    def loss(self, features: Features, words: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of the images' tags as ids: words (N,T) with bos, targets (N,T) with eos, padded."""

    def probabilities(self, features: Features) -> torch.Tensor:
        """Return the probability of each tag (N, tags), 0..1."""


class Objective(Protocol):
    """What training minimises; `signature` says it in one line, with all that makes its numbers comparable."""

    signature: str

    def begin_epoch(self, epoch: int) -> None:
        """Called before each epoch, counted from 0, that is begun or gone on with."""

    def next_stage(self) -> float | None:
        """Begin the next stage of training, if there is one; return its constant factor of the learning rates.

        Called when validations have stopped improving (trainer.patience). None: there is none, and the run ends.
        """

    def __call__(self, captioner: Any, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the scalar loss with its graph, and scalars to log without; "loss" is among them."""


class Generator(Protocol):
    """A way of decoding, with its settings bound."""

    def __call__(self, decoder: Decoder, memory: Memory) -> Generated: ...


class Generated(NamedTuple):
    """words (N,T) without bos, eos included, padded after it; scores (N,) the sum of their log-probabilities."""

    words: torch.Tensor
    scores: torch.Tensor


# --------------------------------------------------------------------------------------------- scores


@dataclass(frozen=True)
class Score:
    """One metric on one set of captions.

    `per_image` is keyed by image id. `resample`, where set, maps bootstrap weights (resamples, images), in
    per_image's order, to corpus values (resamples,); without it the corpus value is the mean of per_image.
    """

    value: float
    per_image: Mapping[str, float]
    signature: str
    low: float | None = None
    high: float | None = None
    resample: Callable[[np.ndarray], np.ndarray] | None = field(default=None, repr=False, compare=False)


class Scorer(Protocol):
    """Scores captions. Ids of captions and references must agree; strings and numbers only."""

    def __call__(
        self,
        captions: Mapping[str, str],
        references: Mapping[str, Sequence[str]],
        annotations: Mapping[str, Any] | None = None,
    ) -> dict[str, Score]: ...


# ------------------------------------------------------------------------------------------- tracking


class Tracker(Protocol):
    """Where a run writes what it measures: its own files first, W&B as a mirror."""

    def log(self, values: Mapping[str, float], *, step: int) -> None: ...
    def samples(self, rows: Sequence[Mapping[str, Any]], *, step: int, epoch: int) -> None:
        """Captions of a few fixed validation images: {"id", "image": ImageSource, "caption", "references"}."""

    def finish(self, result: Mapping[str, Any] | None, *, status: str, error: str | None = None) -> None: ...


def has_oracle(config: Mapping[str, Any]) -> bool:
    """Return whether the captioner of a config is shown an image's own tags or references in testing too."""
    return any(config.get(group, {}).get("name") == "oracle" for group in ("tags", "draft"))
