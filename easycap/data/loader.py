"""Batches: which images, which of their captions, in which order, as a function of (seed, epoch) alone."""

from __future__ import annotations

import gc
import io
import pickle
import random
import signal
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from easycap.data.images import BadImage
from easycap.types import Batch, Example, Inputs, TextSource, View, Vocabulary


class EpochSampler(Sampler[int]):
    """The order of an epoch: a permutation drawn from (seed, epoch), in whole batches, from batch `start` on.

    Restarting in the middle of an epoch gives exactly the images that were left. Of each batch, rank `number` of
    `count` gets its equal part, so that a batch has the same images however many ranks there are.
    """

    def __init__(self, length: int, *, seed: int, batch_size: int, number: int, count: int) -> None:
        self.length, self.seed, self.epoch, self.start = length, seed, 0, 0
        self.batch_size, self.number, self.own = batch_size, number, batch_size // count

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(hash_seed(self.seed, self.epoch))
        batches = torch.randperm(self.length, generator=generator).split(self.batch_size)
        for batch in batches[self.start : self.length // self.batch_size]:
            yield from batch[self.number * self.own : (self.number + 1) * self.own].tolist()

    def __len__(self) -> int:
        return (self.length // self.batch_size - self.start) * self.own


class PackedExamples(Sequence[Example]):
    """Examples as bytes in one array, made anew when asked for.

    For processes forked from this one: looking at an object changes the count of its references, which would copy the
    page it lies in, and in the end all of them, to each process. Nothing here is ever written.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        packed, ends = io.BytesIO(), [0]
        for example in examples:
            packed.write(pickle.dumps(example))
            ends.append(packed.tell())
        self.packed, self.ends = np.frombuffer(packed.getbuffer(), np.uint8), np.array(ends)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> Example:
        return pickle.loads(self.packed[self.ends[index] : self.ends[index + 1]])


class ImageDataset(TorchDataset):
    """Examples as (example, what a model gets of it), or with the error that kept the image from being read."""

    def __init__(self, examples: Sequence[Example], view: View) -> None:
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
    are cut to `max_words` positions, bos included: a cut caption is taught its next word, not a false end.
    `captions_per_image` None takes all of them. `context` gives each segment's words beside an image. `epoch` None is
    testing.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        context: Mapping[str, TextSource],
        *,
        max_words: int,
        captions_per_image: int | None,
        seed: int,
    ) -> None:
        self.vocabulary, self.context, self.max_words = vocabulary, context, max_words
        self.captions_per_image, self.seed = captions_per_image, seed
        self.epoch: int | None = None

    def __call__(self, items: list[tuple[Example, torch.Tensor | BadImage]]) -> Batch | BadImage:
        for _, pixels in items:
            if isinstance(pixels, BadImage):
                return pixels
        words: list[list[int]] = []
        rows: list[int] = []
        drawn = [self.draw(example) for example, _ in items]
        for row, captions in enumerate(drawn):
            for caption in captions:
                words.append(
                    [self.vocabulary.bos_id, *self.vocabulary.encode(caption), self.vocabulary.eos_id]
                )
                rows.append(row)
        length = min(self.max_words + 1, max(map(len, words), default=2))
        padded = _padded(words, length, self.vocabulary.pad_id)
        inputs = padded[:, :-1].masked_fill(padded[:, :-1] == self.vocabulary.eos_id, self.vocabulary.pad_id)
        images = together([pixels for _, pixels in items])
        examples = [example for example, _ in items]
        context = {name: self._beside(source, examples, drawn) for name, source in self.context.items()}
        ids = [example.id for example in examples]
        return Batch(ids, Inputs(images, context), inputs, padded[:, 1:], torch.tensor(rows))

    def _beside(
        self, source: TextSource, examples: Sequence[Example], drawn: Sequence[Sequence[str]]
    ) -> torch.Tensor:
        """The words of `source` beside each image, ids (N,M)."""
        texts = [source(e, epoch=self.epoch, said=said) for e, said in zip(examples, drawn, strict=True)]
        return context_ids(texts, self.vocabulary, max_words=source.max_words)

    def draw(self, example: Example) -> Sequence[str]:
        """Return this epoch's captions of one image."""
        wanted = self.captions_per_image
        if wanted is None or wanted >= len(example.references):
            return example.references
        return random.Random(f"{self.seed}/{self.epoch or 0}/{example.id}").sample(example.references, wanted)


def context_ids(texts: Sequence[str], vocabulary: Vocabulary, *, max_words: int) -> torch.Tensor:
    """Return the ids (N,M) of the words beside N images, at most `max_words`, padded."""
    ids = [vocabulary.encode(text)[:max_words] for text in texts]
    return _padded(ids, max(map(len, ids)), vocabulary.pad_id)


def _padded(rows: Sequence[Sequence[int]], length: int, pad_id: int) -> torch.Tensor:
    """Lists of ids, each cut to `length` -> (B, length)."""
    padded = torch.full((len(rows), length), pad_id)
    for row, ids in enumerate(rows):
        padded[row, : len(ids)] = torch.tensor(ids[:length], dtype=torch.long)
    return padded


def together(images: Sequence[torch.Tensor]) -> torch.Tensor:
    """N times pixels (3,S,S) or features (R,C) -> (N,3,S,S) or (N,R,C), rows of NaN after those of fewer regions.

    NaN, so that a mask forgotten anywhere is a loss that is no number, not a slightly wrong one.
    """
    if images[0].is_floating_point():
        return pad_sequence(images, batch_first=True, padding_value=float("nan"))
    return torch.stack(images)


class TrainLoader:
    """Endless supply of epochs: `epoch(e, start)` iterates over the batches of epoch e from batch `start` on.

    `batch_size` images are a batch of all `ranks` (number, count) together; each loads its own part. Raises
    `ValueError` if they cannot share it equally.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        view: View,
        vocabulary: Vocabulary,
        context: Mapping[str, TextSource],
        *,
        batch_size: int,
        captions_per_image: int | None,
        max_words: int,
        workers: int,
        seed: int,
        ranks: tuple[int, int],
    ) -> None:
        number, count = ranks
        if batch_size % count:
            raise ValueError(
                f"trainer.batch_size={batch_size} is the batch of all ranks together: it must be a multiple of {count}"
            )
        self.batch_size = min(batch_size, len(examples) // count * count)
        self.sampler = EpochSampler(
            len(examples), seed=seed, batch_size=self.batch_size, number=number, count=count
        )
        self.collate = Collate(
            vocabulary, context, max_words=max_words, captions_per_image=captions_per_image, seed=seed
        )
        self.view = view
        self.loader = DataLoader(
            ImageDataset(PackedExamples(examples) if workers else examples, view),
            batch_size=self.sampler.own,
            sampler=self.sampler,
            collate_fn=self.collate,
            num_workers=workers,
            drop_last=True,
            worker_init_fn=_begin_worker,
            generator=torch.Generator(),  # its own: the global one must not depend on how batches are loaded
            pin_memory=torch.cuda.is_available(),
        )

    @property
    def batches_per_epoch(self) -> int:
        return self.sampler.length // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        # Workers are forked anew each epoch and so see these values.
        self.sampler.epoch = self.collate.epoch = epoch
        self.view.begin_epoch(epoch)
        self.sampler.start = start
        return iter(Batches(self.loader))


class Batches:
    """What a DataLoader loads, any number of times; raises `ValueError` naming an image that could not be read.

    Here and not in a worker: an error that leaves a worker arrives as a traceback in words.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            if isinstance(batch, BadImage):
                raise bad_image_ends(batch)
            yield batch

    def __len__(self) -> int:
        return len(self.loader)


def bad_image_ends(error: BadImage) -> ValueError:
    """Return the error that ends a run at an image that cannot be read."""
    return ValueError(
        f"{error}: mend it, or leave such images out with data.on_bad_image=skip; `easycap data check` lists them all"
    )


def evaluation_batches(
    examples: Sequence[Example],
    view: View,
    vocabulary: Vocabulary,
    context: Mapping[str, TextSource],
    *,
    batch_size: int,
    max_words: int,
    workers: int,
) -> Batches:
    """Return batches over all examples in order, each image once, with all its captions."""
    collate = Collate(vocabulary, context, max_words=max_words, captions_per_image=None, seed=0)
    dataset = ImageDataset(examples, view)
    return Batches(DataLoader(dataset, batch_size=batch_size, collate_fn=collate, num_workers=workers))


def _begin_worker(worker: int) -> None:
    gc.freeze()  # what was there before is not looked through for garbage, which would write to all of it
    # Ctrl-C reaches every process of a terminal; the main one still needs the batches of this step to save in peace.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def hash_seed(*parts: int) -> int:
    """Mix integers into one 63-bit seed, equal on every machine."""
    return random.Random("/".join(map(str, parts))).getrandbits(63)
