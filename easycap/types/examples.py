"""What flows from data sources to the model: examples, conditions, batches, and the vocabulary."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from easycap.registry import SharedSettings

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import PIL.Image
    import torch
    from tokenizers import Tokenizer


class ImageSource(Protocol):
    """Where the pixels of one image come from: a file, or a row of a packed array."""

    def load(self, at_least: int | None = None) -> PIL.Image.Image:
        """Return the upright RGB image, at a smaller size with at least so many pixels on the short side if that is
        quicker; raises `OSError` or `UserError` naming the file if it cannot.
        """

    def array(self, at_least: int | None = None) -> np.ndarray:
        """Return the pixels (H,W,3), uint8, of what `load` returns."""

    def identity(self) -> str:
        """Return a line that changes with the image's content or its file; caches are keyed by it."""


@dataclass(frozen=True, slots=True)
class Example:
    """One image with everything known about it.

    `tags` are words for things and actions in the image. `annotations` is whatever structured truth the source
    has (a scene graph, object categories); scorers that know the source read it, nothing else does.
    `fields` {name: value} are the data's own columns, e.g. nocaps' domain: scores can be grouped by them.
    """

    id: str
    image: ImageSource
    references: tuple[str, ...]
    tags: tuple[str, ...] = ()
    annotations: Any = None
    fields: Mapping[str, str] = field(default_factory=lambda: _NO_FIELDS, hash=False)


_NO_FIELDS: Mapping[str, str] = {}  # one for all examples: millions of empty ones take memory


class DataIssue(NamedTuple):
    """Something wrong with a source's data: in which split, with which image id or file, and what.

    `dropped` says whether the image or annotation is left out for it; else it was repaired, as `what` says.
    """

    split: str
    id: str
    file: str
    what: str
    dropped: bool


class Dataset(NamedTuple):
    """A source's splits, the names of registered scorers that understand its annotations, and what is wrong with it.

    `fingerprint`, where the source has one, is the same on every machine as long as images and captions are the same.
    `notes` are sentences for the user, e.g. that a download is incomplete.
    """

    name: str
    splits: Mapping[str, Sequence[Example]]
    scorers: tuple[str, ...] = ()
    issues: tuple[DataIssue, ...] = ()
    fingerprint: str | None = None
    notes: tuple[str, ...] = ()


Stage = Literal["train", "test"]  # what examples are used for


class ConditionInfo(NamedTuple):
    """What is known of a text condition: its `source` at test time in a few words; whether it is an `oracle`, which
    reads the image's own references, so that scores are upper bounds and are marked so; whether it has text for
    `any_image`, or only for those of the data set.
    """

    source: str
    oracle: bool = False
    any_image: bool = True


class TextCondition(Protocol):
    """Text that a captioner reads besides the image, e.g. its tags or a draft of its caption.

    Subclass it and register the class with `register_condition`. It may take a `ConditionData` before `*` and must
    have the setting `max_length`: at most so many tokens are read. Only `text` and `describe` have no default.
    """

    max_length: int

    @property
    def needs_data_tags(self) -> bool:
        """Whether `Example.tags` of the training images must be read from the data."""
        return False

    @property
    def needs_pixels(self) -> bool:
        """Whether the images must be readable, even if the captioner's encoder reads precomputed features."""
        return False

    def validate(self, config: Mapping[str, Any]) -> None:
        """Raise `UserError` for settings that cannot work in a checked config, and for missing files."""

    def prepare(self, examples: Sequence[Example], stage: Stage) -> None:
        """Do the slow work for examples, e.g. run a model on their images, before `text` is called for them, maybe in
        the data loader's processes. Raises `UserError` for what is missing.
        """

    @abstractmethod
    def text(self, example: Example, *, epoch: int | None, targets: Sequence[str]) -> str:
        """Return the text. `epoch` counts from 0 and is None at test time; `targets` are the captions that are learned
        from this image now.
        """

    def room(self, vocabulary: Vocabulary) -> int:
        """Return how many tokens of a text are read; raises `UserError` if there is room for none."""
        return self.max_length

    def encode(self, text: str, vocabulary: Vocabulary) -> list[int]:
        """Return the ids that are read of a text, at most `max_length`."""
        return vocabulary.encode(text)[: self.max_length]

    def save(self, run: Path) -> None:
        """Save in a run's folder, in a folder of its own, what `load` needs to replace everything outside of it."""

    def save_for_photos(self, folder: Path) -> None:
        """Save in `folder`, as `save` does in a run's, what captions of photos need; called after `load`."""
        self.save(folder)

    def load(self, run: Path) -> None:
        """Use what `save` left in a run's folder; called before all others. Nothing is read yet."""

    @abstractmethod
    def describe(self) -> ConditionInfo:
        """Return what is known without reading the data."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a captioner gets of N images: images (N,3,H,W) uint8, or their features (N,R,C), made before and padded with
    rows of NaN; and the conditioning text, {condition: ids (N,M), padded with the pad id}.
    """

    images: torch.Tensor
    context: dict[str, torch.Tensor] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Inputs:
        """Return the same on a device."""
        context = {name: ids.to(device, non_blocking=True) for name, ids in self.context.items()}
        return Inputs(self.images.to(device, non_blocking=True), context)

    def pin_memory(self) -> Inputs:
        """Return the same in page-locked memory, from which a GPU copies without the CPU's waiting."""
        context = {name: ids.pin_memory() for name, ids in self.context.items()}
        return Inputs(self.images.pin_memory(), context)

    def first(self, count: int) -> Inputs:
        """Return those of the first `count` images."""
        return Inputs(self.images[:count], {name: ids[:count] for name, ids in self.context.items()})


@dataclass(slots=True)
class Batch:
    """N images and B captions of them.

    input_ids (B,T) start with bos; targets (B,T) are input_ids shifted left and end with eos; both are padded with
    pad_id; rows (B,) says which image a caption belongs to.
    """

    image_ids: list[str]
    inputs: Inputs
    input_ids: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        """Return the same on a device."""
        input_ids, targets, rows = (
            t.to(device, non_blocking=True) for t in (self.input_ids, self.targets, self.rows)
        )
        return Batch(self.image_ids, self.inputs.to(device), input_ids, targets, rows)

    def pin_memory(self) -> Batch:
        """Return the same in page-locked memory; torch's DataLoader calls it."""
        input_ids, targets, rows = (t.pin_memory() for t in (self.input_ids, self.targets, self.rows))
        return Batch(self.image_ids, self.inputs.pin_memory(), input_ids, targets, rows)


class Preprocessing(NamedTuple):
    """What an encoder expects: square input of `size` pixels, cut from the centre `crop` share of the image's
    short side, or with `squash` the whole image resized to it, and per-channel mean and std for pixel values scaled to
    0..1.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: float = 1.0
    interpolation: str = "bilinear"
    squash: bool = False


@dataclass(frozen=True, kw_only=True)
class PrecomputedSettings(SharedSettings):
    """Settings of precomputed features (R,C): `features` says where the files are, `region_dim` is C, and R goes from
    `min_regions` to `max_regions`; with `zero_regions` R is always `max_regions`, zeros in the place of missing ones.
    """

    features: str
    region_dim: int
    min_regions: int
    max_regions: int
    zero_regions: bool


class ImageInput(Protocol):
    """What a model gets of images: pixels, a random part of them, or cached or precomputed features."""

    def begin_epoch(self, epoch: int) -> None:
        """Called before an epoch (from 0) is loaded."""

    def of(self, example: Example) -> torch.Tensor:
        """Return pixels (3,S,S) uint8 or features (R,C)."""


class Vocabulary(Protocol):
    """Text <-> ids with distinct pad, bos and eos. It is saved next to a checkpoint and loads itself from there.

    It may have `never_ids`, further ids that are never generated, and `encode_prompt`, which is `encode` of a text with
    its white space.
    """

    pad_id: int
    bos_id: int
    eos_id: int
    unk_id: int | None

    def __len__(self) -> int: ...
    def encode(self, text: str) -> list[int]:
        """Return word ids without special tokens."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text up to the first eos; pad and bos are skipped, unk is <unk>."""

    def subword_ids(self, tokenizer: Tokenizer) -> list[list[int]]:
        """Return, for each id, its ids in a language model's `tokenizer`; an empty list where it has none."""

    def save(self, folder: Any) -> None:
        """Write the vocabulary into a folder of a checkpoint."""
