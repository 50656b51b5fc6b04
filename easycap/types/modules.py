"""What the parts of a model take and return, and their protocols; objectives and generators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from easycap.types.examples import Batch, Inputs, Preprocessing

if TYPE_CHECKING:
    import torch


class Features(NamedTuple):
    """An encoder's output: patches (N,R,C), mask (N,R), True for real ones, and the grid (h,w) if they form one.

    Patches are those of a ViT, the positions of a feature map, regions, or one pooled vector.
    """

    patches: torch.Tensor
    mask: torch.Tensor
    grid: tuple[int, int] | None

    def mean(self, *, normalize: bool = False) -> torch.Tensor:
        """Return the mean of the real patches (N,C); with `normalize` divided by its length.

        A CLIP embedding says what it says by its direction; ClipCap's Transformer mappers read it at length 1
        (train.py:42-47 of rmokady/CLIP_prefix_caption at 1ad805a).
        """
        weights = self.mask.unsqueeze(-1).to(self.patches.dtype)
        mean = (self.patches * weights).sum(1) / weights.sum(1)
        return mean / mean.norm(dim=-1, keepdim=True).clamp(min=1e-12) if normalize else mean


class Memory(NamedTuple):
    """What a decoder reads: tokens (N,M,D), mask (N,M), segments {"image" or a text condition's name: slice}."""

    tokens: torch.Tensor
    mask: torch.Tensor
    segments: dict[str, slice]


class Output(NamedTuple):
    """logits (B,T,V) for word positions only, or (P,V) for those of them that are not padding; attention (B,T,M)
    where the decoder has one; named extra losses.
    """

    logits: torch.Tensor
    attention: torch.Tensor | None = None
    losses: dict[str, torch.Tensor] = {}  # noqa: RUF012  never mutated


class Encoder(Protocol):
    """A view of the image. `channels` is C, `grid` the (h,w) of its patches at its own input size or None.

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
    """State of a decoder for B rows: the memory and the words so far."""

    def select(self, rows: torch.Tensor) -> State:
        """Return a NEW state of the given rows (B',): reorders beams, repeats an image for its captions."""


class Decoder(Protocol):
    """Words given memory. `memory_dim` is the width D it wants, `max_length` the longest T it can take.

    A decoder with `prefix` reads the memory position by position as if it were words, so that their order matters; the
    others attend to all of it. `token_embedding` maps ids (...) to vectors (...,E); E is D where it has `prefix`.

    A decoder with an attribute `skips_padding`, True, takes as a third argument which words are `real` (B,T), not
    padding at a row's end, and returns logits (P,V) of those alone.
    """

    memory_dim: int
    max_length: int
    prefix: bool

    @property
    def token_embedding(self) -> torch.nn.Embedding:
        """Return the table of word vectors."""

    def start(self, memory: Memory) -> State:
        """Once per image: everything that does not depend on words."""

    def __call__(self, words: torch.Tensor, state: State) -> Output:
        """words (B,T), the first is bos -> Output; logits[:, t] predicts words[:, t+1] or eos. Consumes `state`."""

    def step(self, words: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """words (B,) -> logits (B,V) and the next state. Consumes `state`."""


class Tagger(Protocol):
    """Tags of an image from its features; `max_length` is the longest row T of them that it learns from."""

    max_length: int

    def loss(self, features: Features, words: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of the images' tags as ids: words (N,T) with bos, targets (N,T) with eos, padded."""

    def probabilities(self, features: Features) -> torch.Tensor:
        """Return the probability of each tag (N, tags), 0..1."""


class Objective(Protocol):
    """What training minimises; `signature` describes it in one line, with all that makes its numbers comparable.

    An objective may have an attribute `one_pass`: True as long as every batch takes the same passes through the model,
    so that ranks that have a part of it each (trainer.shard) can gather it piece by piece.
    """

    signature: str

    def begin_epoch(self, epoch: int) -> None:
        """Called before an epoch (counted from 0) starts, and before one is resumed."""

    def next_stage(self) -> float | None:
        """Begin the next stage of training, if there is one; return its constant factor of the learning rates.

        Called when validations have stopped improving (trainer.patience). None: there is none, and the run ends.
        """

    def __call__(self, captioner: Any, batch: Batch, /) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the scalar loss with its graph, and scalars to log without; "loss" is among them."""


class CaptionModel(Protocol):
    """What generation asks of a captioner: images -> features -> the memory that its decoder reads."""

    training: bool

    @property
    def decoder(self) -> Decoder:
        """Return its decoder."""

    def features_of(self, inputs: Inputs) -> Any:
        """Return the features of N images, for `build_memory`."""

    def build_memory(self, inputs: Inputs, features: Any = None) -> Memory:
        """Return the memory of N images; `features` are theirs if they were encoded before."""

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Yield its weights, as a torch module does."""

    def fold_encoder(self, num_images: int) -> None:
        """Fold BatchNorm in the encoder if that pays off for so many images."""

    def train(self, mode: bool = True) -> Any:
        """Switch to training mode, as a torch module does."""

    def eval(self) -> Any:
        """Switch to eval mode, as a torch module does."""


class Generator(Protocol):
    """A way of decoding, with its settings bound."""

    def __call__(self, decoder: Decoder, memory: Memory) -> Generated:
        """Return captions for each image of the memory."""


class Generated(NamedTuple):
    """words (N,T) without bos, eos included, padded after it; scores (N,) the sum of their log-probabilities."""

    words: torch.Tensor
    scores: torch.Tensor
