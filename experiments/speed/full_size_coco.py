"""A generated COCO of full size: seconds until the first batch, memory of all processes together, images per second.

    python -W ignore experiments/speed/full_size_coco.py [--workers 8] [--epochs 2] [--cached] [--out FILE]

118,287 images for training and 5,000 for validation with 5 captions each, in COCO's own layout in a folder that is
removed at the end; the images are 64x48 JPEGs, links to 50 different ones, so that loading costs what is not decoding.
The memory is the sum of the proportional set sizes (PSS) of the process and its workers, which counts shared pages
once, looked at twice a second. With --cached the training images come from a feature cache of 4 patches of 64
numbers each, as after trainer.cache_features=true.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import keep, machine, markdown
from PIL import Image

from easycap.config.instantiate import build
from easycap.config.schema import option_from_text
from easycap.data.array_cache import ArrayCache
from easycap.data.features import CachedFeatures
from easycap.data.loader import TrainLoader
from easycap.data.transforms import Transform
from easycap.types import Example, Preprocessing
from easycap.vocab.word import WordVocabulary

MANY_IMAGES, VAL_IMAGES, CAPTIONS, LINKED = 118_287, 5_000, 5, 50
TRANSFORM = Transform(Preprocessing(32, (0.5,) * 3, (0.5,) * 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=MANY_IMAGES)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--cached", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        root = Path(scratch)
        make_coco(root, "train2017", args.images)
        make_coco(root, "val2017", VAL_IMAGES)
        found = load(root, workers=args.workers, epochs=args.epochs, cached=args.cached)
    print(markdown([{name: f"{value:,.1f}" for name, value in found.items()}]))
    keep(args.out, {"machine": machine(), "load_average": os.getloadavg(), **vars(args), "out": None} | found)


def make_coco(root: Path, split: str, count: int) -> None:
    """Write annotations/captions_<split>.json and <split>/*.jpg."""
    random = np.random.default_rng(count)
    folder, annotations = root / split, root / "annotations"
    folder.mkdir()
    annotations.mkdir(exist_ok=True)
    drawn = []
    for number in range(LINKED):
        drawn.append(root / f"{split}.{number}.jpg")
        pixels = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 48)).save(drawn[-1], quality=90)
    ids = [2 * number + (split == "val2017") for number in range(count)]
    for number, image_id in enumerate(ids):
        os.link(drawn[number % LINKED], folder / f"{image_id:012d}.jpg")
    captions = make_captions(random, CAPTIONS * count)
    stored = {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "height": 48, "width": 64} for i in ids],
        "annotations": [
            {"image_id": ids[n // CAPTIONS], "id": n, "caption": text} for n, text in enumerate(captions)
        ],
    }
    (annotations / f"captions_{split}.json").write_text(json.dumps(stored), encoding="utf-8")


def make_captions(random: np.random.Generator, count: int) -> list[str]:
    """Captions of 8 to 13 of 25,000 words, the n-th word as frequent as 1/n: about as long as COCO's."""
    words = np.array(
        ["".join(random.choice(list("abcdeilmnorst"), 2 + n % 6)) + f"{n:x}" for n in range(25_000)]
    )
    share = 1 / np.arange(1, len(words) + 1)
    drawn = words[random.choice(len(words), 13 * count, p=share / share.sum())].reshape(count, 13)
    lengths = random.integers(8, 14, count)
    return [
        " ".join(row[:length]).capitalize() + "." for row, length in zip(drawn.tolist(), lengths, strict=True)
    ]


def load(root: Path, *, workers: int, epochs: int, cached: bool) -> dict[str, Any]:
    """What a run does before and in its epochs, but for the model."""
    started, worked = time.perf_counter(), time.process_time()
    settings = option_from_text("data", f"coco,root={root}")
    dataset = build("data", settings, pixels=True, with_tags=False)
    read = time.perf_counter()
    examples = dataset.splits["train"]
    vocabulary = WordVocabulary(
        size=15_000,
        min_count=1,
        captions=[text for example in examples for text in example.references],
        segmenter="spaces",
    )
    words = time.perf_counter()
    found = {"reading, s": read - started, "vocabulary, s": words - read}
    found["both, s of the processor"] = time.process_time() - worked
    view = cached_view(root / "cache", examples) if cached else TRANSFORM
    cache_made = time.perf_counter()
    loader = TrainLoader(
        examples, view, vocabulary, {}, batch_size=32, captions_per_image=1, max_length=20, workers=workers,
        seed=1, ranks=(0, 1),
    )  # fmt: skip
    memory = Memory()
    for epoch in range(epochs):
        first, memory.peak = None, 0
        for number, _ in enumerate(loader.epoch(epoch)):
            first = first or time.perf_counter()
            seen = number + 1
        seconds = time.perf_counter() - first
        if epoch == 0:
            found["first batch, s"] = first - cache_made
            found["alone before, MiB"] = memory.before / 2**20
        found[f"epoch {epoch + 1}, MiB of all"] = memory.peak / 2**20
        found[f"epoch {epoch + 1}, images/s"] = (seen - 1) * 32 / seconds
    memory.stop()
    return found


def cached_view(folder: Path, examples: list[Example]) -> CachedFeatures:
    cache = ArrayCache(folder, examples, "generated", what="features")
    patches = torch.randn(1000, 4, 64)
    cache.fill(
        lambda images: patches[: len(images)], TRANSFORM, batch_size=1000, workers=0, progress="caching"
    )
    return CachedFeatures([cache], TRANSFORM, live_from=None)


class Memory:
    """The highest sum of PSS of this process and its children since `peak` was last set to 0."""

    def __init__(self) -> None:
        self.before = self.peak = pss()
        self.asked_to_stop = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self) -> None:
        while not self.asked_to_stop.wait(0.5):
            self.peak = max(self.peak, pss())

    def stop(self) -> None:
        self.asked_to_stop.set()
        self.thread.join()


def pss() -> int:
    """The bytes of this process and its children, pages that n of them share counted 1/n in each."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    total = 0
    for process in ("self", *children):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


if __name__ == "__main__":
    main()
