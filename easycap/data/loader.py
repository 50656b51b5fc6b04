"""Batches: which images, which of their captions, in which order, as a function of (seed, epoch) alone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence, Sized
from itertools import islice
from typing import TypeVar, cast

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from easycap.data.images import BadImage
from easycap.data.issues import unread_or_bad
from easycap.data.packed import shareable
from easycap.data.parquet_images import blocks_of
from easycap.data.sampler import EpochSampler
from easycap.data.workers import data_loader, loaded_batches, loading_workers, workers_with_room
from easycap.errors import UserError
from easycap.types import Batch, Example, ImageInput, Inputs, TextCondition, Vocabulary
from easycap.utils.processed_images import ProcessedImages
from easycap.utils.progress_bar import tracked

T = TypeVar("T")


class ImageDataset(TorchDataset):
    """Examples as (example, what a model gets of it), or with the error that kept the image from being read."""

    def __init__(self, examples: Sequence[Example], view: ImageInput) -> None:
        self.examples, self.view = examples, view

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[Example, torch.Tensor | BadImage]:
        example = self.examples[index]
        try:
            return example, self.view.of(example)
        except BadImage as error:
            return example, error


class Collate:
    """A list of (example, pixels) -> Batch with `captions_per_image` captions of each image (fewer if it has fewer).

    Which captions are drawn is a function of (seed, epoch, image id), whatever the batch or the worker. Captions
    are cut to `max_length` positions, bos included: a cut caption is taught its next word, not a false end.
    `captions_per_image` None takes all of them. `conditions` are {name: text condition}. `epoch` None is test time.
    Raises `UserError` for a condition without room for its text.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        conditions: Mapping[str, TextCondition],
        *,
        max_length: int,
        captions_per_image: int | None,
        seed: int,
    ) -> None:
        for condition in conditions.values():
            condition.room(vocabulary)  # here, not in a worker, whose error would arrive as a traceback
        self.vocabulary, self.conditions, self.max_length = vocabulary, dict(conditions), max_length
        self.captions_per_image, self.seed = captions_per_image, seed
        self.epoch: int | None = None

    def __call__(self, items: list[tuple[Example, torch.Tensor | BadImage]]) -> Batch | BadImage:
        """Return a Batch of examples and their inputs, or the first image that cannot be read."""
        images = _images_of(items)
        if isinstance(images, BadImage):
            return images
        words: list[list[int]] = []
        rows: list[int] = []
        drawn = [self.draw(example) for example, _ in items]
        for row, captions in enumerate(drawn):
            for caption in captions:
                words.append(
                    [self.vocabulary.bos_id, *self.vocabulary.encode(caption), self.vocabulary.eos_id]
                )
                rows.append(row)
        length = min(self.max_length + 1, max(map(len, words), default=2))
        padded = _padded(words, length, self.vocabulary.pad_id)
        inputs = padded[:, :-1].masked_fill(padded[:, :-1] == self.vocabulary.eos_id, self.vocabulary.pad_id)
        examples = [example for example, _ in items]
        context = {name: self._condition_ids(one, examples, drawn) for name, one in self.conditions.items()}
        ids = [example.id for example in examples]
        return Batch(ids, Inputs(images, context), inputs, padded[:, 1:], torch.tensor(rows))

    def _condition_ids(
        self, condition: TextCondition, examples: Sequence[Example], drawn: Sequence[Sequence[str]]
    ) -> torch.Tensor:
        """The text of `condition` for each image, ids (N,M)."""
        texts = [
            condition.text(example, epoch=self.epoch, targets=captions)
            for example, captions in zip(examples, drawn, strict=True)
        ]
        return context_ids(texts, self.vocabulary, condition)

    def draw(self, example: Example) -> Sequence[str]:
        """Return this epoch's captions of one image."""
        wanted = self.captions_per_image
        if wanted is None or wanted >= len(example.references):
            return example.references
        return random.Random(f"{self.seed}/{self.epoch or 0}/{example.id}").sample(example.references, wanted)


def context_ids(texts: Sequence[str], vocabulary: Vocabulary, condition: TextCondition) -> torch.Tensor:
    """Return the ids (N,M) of N texts of a condition, padded."""
    ids = [condition.encode(text, vocabulary) for text in texts]
    return _padded(ids, max(map(len, ids)), vocabulary.pad_id)


def _padded(rows: Sequence[Sequence[int]], length: int, pad_id: int) -> torch.Tensor:
    """Lists of ids, each cut to `length` -> (B, length)."""
    padded = [[*ids[:length], *[pad_id] * (length - len(ids))] for ids in rows]
    return torch.tensor(padded, dtype=torch.long).view(len(rows), length)


def collate(images: Sequence[torch.Tensor]) -> torch.Tensor:
    """N times pixels (3,S,S) or features (R,C) -> (N,3,S,S) or (N,R,C), rows of NaN after those of fewer regions.

    What a model's own processor made stays `ProcessedImages`. NaN, so that a mask forgotten anywhere is a loss that is
    not a number, not a slightly wrong one.
    """
    if isinstance(images[0], ProcessedImages):
        return cast(torch.Tensor, ProcessedImages.joined(cast(Sequence[ProcessedImages], images)))
    if images[0].is_floating_point():
        return pad_sequence(list(images), batch_first=True, padding_value=float("nan"))
    return torch.stack(list(images))


def _images_of(items: Sequence[tuple[Example, torch.Tensor | BadImage]]) -> torch.Tensor | BadImage:
    """The collated images of N items of an ImageDataset, or the first that could not be read."""
    images: list[torch.Tensor] = []
    for _, image in items:
        if isinstance(image, BadImage):
            return image
        images.append(image)
    return collate(images)


class TrainLoader:
    """Endless supply of epochs: `epoch(e, start)` iterates over the batches of epoch e from batch `start` on.

    `batch_size` images are a batch of all `ranks` (rank, world_size) together; each loads its own part. Raises
    `UserError` if they cannot share it equally.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        view: ImageInput,
        vocabulary: Vocabulary,
        conditions: Mapping[str, TextCondition],
        *,
        batch_size: int,
        captions_per_image: int | None,
        max_length: int,
        workers: int | str,
        seed: int,
        ranks: tuple[int, int],
    ) -> None:
        number, count = ranks
        if batch_size % count:
            raise UserError(
                f"trainer.batch_size={batch_size} is the batch of all ranks together: it must be a multiple of {count}"
            )
        self.batch_size = min(batch_size, len(examples) // count * count)
        self.sampler = EpochSampler(
            len(examples),
            seed=seed,
            batch_size=self.batch_size,
            number=number,
            count=count,
            blocks=blocks_of(examples),
        )
        self.collate = Collate(
            vocabulary, conditions, max_length=max_length, captions_per_image=captions_per_image, seed=seed
        )
        self.view = view
        chosen = loading_workers(workers, examples, self.batch_size, ranks=count)
        chosen = workers_with_room(chosen, examples, view, self.sampler.own, given=workers)
        self.loader = data_loader(
            ImageDataset(shareable(examples) if chosen else examples, view),
            workers=chosen,
            batch_size=self.sampler.own,
            sampler=self.sampler,
            collate_fn=self.collate,
            drop_last=True,
            generator=torch.Generator(),  # its own: the global one must not depend on how batches are loaded
            pin_memory=torch.cuda.is_initialized(),  # by the model, which is on its device already
        )

    @property
    def batches_per_epoch(self) -> int:
        """Return the number of batches of an epoch, of this process."""
        return self.sampler.length // self.batch_size

    def first_batch(self, epoch: int) -> Batch:
        """Load the first batch of an epoch in this process, without loader processes."""
        self._begin_epoch(epoch, 0)
        items = [self.loader.dataset[index] for index in islice(self.sampler, self.sampler.own)]
        return _loaded(self.collate(items))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch (from 0), without the first `start` of them."""
        # Workers are forked again each epoch and so see these values.
        self._begin_epoch(epoch, start)
        return iter(Batches(self.loader))

    def _begin_epoch(self, epoch: int, start: int) -> None:
        self.sampler.epoch = self.collate.epoch = epoch
        self.view.begin_epoch(epoch)
        self.sampler.start = start


class Batches:
    """What a DataLoader loads, any number of times; raises `UserError` naming an image that could not be read.

    Here and not in a worker: an error that leaves a worker arrives as a traceback in words.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Batch]:
        for batch in loaded_batches(self.loader):
            yield _loaded(batch)

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def num_images(self) -> int:
        """Return the number of images that are loaded."""
        dataset = self.loader.dataset
        assert isinstance(dataset, Sized)
        return len(dataset)


def show_images(batches: Sequence[Batch] | Batches, what: str, *, shown: bool) -> Iterator[Batch]:
    """Yield the batches, showing progress in images if `shown`."""
    known = batches.num_images if isinstance(batches, Batches) else None
    images = sum(len(batch.image_ids) for batch in batches) if known is None else known
    return tracked(batches, what, images, size=lambda batch: len(batch.image_ids), shown=shown)


def _loaded(batch: T | BadImage) -> T:
    if isinstance(batch, BadImage):
        raise unread_or_bad(batch)
    return batch


def image_batches(
    examples: Sequence[Example], view: ImageInput, *, batch_size: int, workers: int | str
) -> Iterator[torch.Tensor]:
    """Yield what `view` has of all examples in order, in batches; raises `UserError` naming an image that cannot be
    read.
    """
    loader = data_loader(
        ImageDataset(examples, view),
        workers=_workers(workers, examples, view, batch_size),
        batch_size=batch_size,
        collate_fn=_images_of,
        generator=torch.Generator(),  # its own: the global one must not depend on what was loaded
    )
    for batch in loaded_batches(loader):
        yield _loaded(batch)


def _workers(workers: int | str, examples: Sequence[Example], view: ImageInput, batch_size: int) -> int:
    chosen = loading_workers(workers, examples, batch_size)
    return workers_with_room(chosen, examples, view, batch_size, given=workers)


def evaluation_batches(
    examples: Sequence[Example],
    view: ImageInput,
    vocabulary: Vocabulary,
    conditions: Mapping[str, TextCondition],
    *,
    batch_size: int,
    max_length: int,
    workers: int | str,
) -> Batches:
    """Return batches over all examples in order, each image once, with all its captions."""
    collate = Collate(vocabulary, conditions, max_length=max_length, captions_per_image=None, seed=0)
    return Batches(
        data_loader(
            ImageDataset(examples, view),
            workers=_workers(workers, examples, view, batch_size),
            batch_size=batch_size,
            collate_fn=collate,
        )
    )
