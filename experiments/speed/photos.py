"""What photographs cost with experiment=easycap/flickr8k: features of JPEGs, training steps, captions, and memory.

    python experiments/speed/photos.py --root FLICKR8K [--weights FILE] [--images 256] [--rounds 5] [--out FILE]
    python experiments/speed/photos.py --quick       # seconds; generated photos, to see that it runs

Features: from files to a feature cache on disk, compared with a plain loop of PIL, timm's transform and timm's
`forward_features`, in turn. Steps and captions: with the recipe's vocabulary and with every word of the training
captions, each in a process of its own, for its peak memory. Run it twice: the first run also fills the recipe's feature
cache, which the peak includes. Untrained weights do not end captions, so every caption reaches the maximum length.
Times are those of the processor, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import timm.data
import torch
from feature_cache import step_of
from loading import make_photos
from measure import alternate, keep, machine, markdown, ratio
from PIL import Image
from training_step import configured

from easycap.data.features import FeatureCache
from easycap.generation.generate import caption_batch
from easycap.runs.environment import peak_memory
from easycap.tasks.base import Task
from easycap.tasks.feature_caching import cached_view
from easycap.train import create_task
from easycap.types import Example, Features
from easycap.utils.allocator import keep_freed_memory

OURS, PLAIN = "easycap", "timm"
BATCH = 32
DECODING = ("greedy", "beam,num_beams=5")
MIN_COUNTS = (4, 1)  # the recipe's, and every word


def main() -> None:
    options = parse()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        if options.root is None:
            os.environ["EASYCAP_CACHE"] = f"{scratch}/cache"
            options.root = generated(Path(scratch), options.images)
        if options.min_count:
            print(json.dumps(trained_and_captioned(options)))
            return
        features = features_of_files(options, Path(scratch))
        rows = [in_a_process(options, min_count) for min_count in MIN_COUNTS]
    print(markdown([features_as_text(features)]), end="\n\n")
    print(markdown([as_text(row) for row in rows]))
    result = {"machine": machine(), "load_average": os.getloadavg(), "features": features, "words": rows}
    keep(options.out, result)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, metavar="FLICKR8K", help="default: generated photos")
    parser.add_argument("--weights", type=Path, help="of the encoder; default: untrained")
    parser.add_argument("--quick", action="store_true", help="16 images, one round")
    parser.add_argument("--images", type=int, default=256, help="of a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each (%(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--min-count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    options = parser.parse_args()
    if options.quick:
        options.images, options.rounds = 16, 1
    return options


def generated(scratch: Path, images: int) -> Path:
    """A folder of photos with five captions each, a few hundred words in all."""
    folder = scratch / "photos"
    folder.mkdir()
    for number, photo in enumerate(sorted(make_photos(folder, images).iterdir())):
        captions = [
            f"a photo of thing {number % 7} and {'odd' if line else f'word{number}'} beside it"
            for line in range(5)
        ]
        photo.with_suffix(".txt").write_text("\n".join(captions))
    return folder


def task_of(options: argparse.Namespace, *overrides: str) -> Task:
    data = [f"data.root={options.root}"]
    if (options.root / "0.jpg").exists():  # of `generated`
        data = ["data=folder", f"data.images={options.root}", "data.captions=null"]
    weights = f"encoder.weights={options.weights}" if options.weights else "encoder.pretrained=false"
    more = [f"trainer.threads={options.threads}", "trainer.workers=0", "device=cpu", *overrides]
    return create_task(configured(["experiment=easycap/flickr8k", *data, weights, *more], "auto"))


def features_of_files(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Images per CPU second from files to features, ours written to disk, and the ratio to timm's."""
    task = task_of(options)
    examples = task.examples("train")[: options.images]
    ways: dict[str, Callable[[], Any]] = {
        OURS: filling(task, examples, scratch),
        f"{PLAIN}, fp32": plain(task, examples, nullcontext),
    }
    precision = task.pipeline.precision.name
    if precision != "fp32":
        ways[f"{PLAIN}, {precision}"] = plain(task, examples, task.pipeline.autocast)
    seconds = alternate(ways, rounds=options.rounds, clock=time.process_time)
    rates = {name: len(examples) / statistics.median(times) for name, times in seconds.items()}
    ratios = {name: ratio(seconds, OURS, name) for name in ways if name != OURS}
    return {"images_per_second": rates, "ratio": ratios, "precision": precision, "images": len(examples)}


def filling(task: Task, examples: list[Example], scratch: Path) -> Callable[[], None]:
    """What caching features does, into a new cache at every call."""
    task.model.freeze_encoder(True)
    task.model.eval().fold_encoder(10 * len(examples))
    numbers = count()

    @torch.no_grad()
    def encode(images: torch.Tensor) -> Features:
        with task.pipeline.autocast():
            return task.model.encode(images)

    def fill() -> None:
        cache = FeatureCache(scratch / f"features{next(numbers)}", examples, "photos")
        cache.encode(encode, task.pipeline.transform, batch_size=BATCH, workers=0)

    return fill


def plain(
    task: Task, examples: list[Example], autocast: Callable[[], AbstractContextManager]
) -> Callable[[], None]:
    """A plain loop as in timm's documentation, with the same weights; images are squashed, as in the recipe."""
    network = task.model.encoder.network
    settings = timm.data.resolve_data_config({"crop_pct": 1.0, "crop_mode": "squash"}, model=network)
    transform = timm.data.create_transform(**settings)

    @torch.no_grad()
    def encode() -> None:
        for start in range(0, len(examples), BATCH):
            files = [example.image.path for example in examples[start : start + BATCH]]
            images = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
            with autocast():
                network.forward_features(images)

    return encode


def in_a_process(options: argparse.Namespace, min_count: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--root", str(options.root), "--min-count", str(min_count)]
    command += [f"--{name}={getattr(options, name)}" for name in ("images", "rounds", "threads")]
    command += [f"--weights={options.weights}"] if options.weights else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def trained_and_captioned(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step and images/s of decoding with a vocabulary, and the memory until then in MiB."""
    task = task_of(options, f"vocab.min_count={options.min_count}", "trainer.cache_features=true")
    features = cached_view(task, None, more_runs=False)
    step = step_of(task, features)
    seconds = alternate({"step": step}, rounds=4 * options.rounds, clock=time.process_time)["step"]
    row: dict[str, Any] = {
        "words": len(task.vocabulary),
        "images": task.trainer_config.batch_size,
        "captions_per_image": task.trainer_config.captions_per_image,
        "step_seconds": statistics.median(seconds),
        "step_peak_mib": peak_mib(task),
        "images_per_second": {},
    }
    task.model.eval()
    examples = task.examples("val")[:BATCH]
    inputs = task.pipeline.inputs(examples, [features.of_whole(example) for example in examples])

    def captioning(decoding: str) -> Callable[[], Any]:
        generator, autocast = task.generator(decoding), task.pipeline.autocast
        return lambda: caption_batch(
            task.model, inputs, generator, task.vocabulary, autocast, task.refinement()
        )

    ways = {decoding: captioning(decoding) for decoding in DECODING}
    for decoding, taken in alternate(ways, rounds=options.rounds, clock=time.process_time).items():
        row["images_per_second"][decoding] = len(examples) / statistics.median(taken)
    return row | {"peak_mib": peak_mib(task)}


def peak_mib(task: Task) -> float:
    return peak_memory(task.device)["peak_memory_bytes"] / 2**20


def features_as_text(found: dict[str, Any]) -> dict[str, str]:
    rates, ratios = found["images_per_second"], found["ratio"]
    text = {f"{name}, images per CPU s": f"{rate:.1f}" for name, rate in rates.items()}
    for name, of in ratios.items():
        text[f"times as fast as {name} (range)"] = "{median:.2f} ({low:.2f} to {high:.2f})".format(**of)
    return text


def as_text(row: dict[str, Any]) -> dict[str, str]:
    text = {"words": f"{row['words']:,}", "step, CPU s": f"{row['step_seconds']:.2f}"}
    for decoding, rate in row["images_per_second"].items():
        text[f"{decoding}, images per CPU s"] = f"{rate:.0f}"
    return text | {"peak of training, MiB": f"{row['step_peak_mib']:.0f}"}


if __name__ == "__main__":
    main()
