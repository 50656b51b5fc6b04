"""Seconds of a training step from the feature cache and with the frozen ResNet-101 in every step, in one run.

    python experiments/speed/feature_cache.py [--precision bf16] [--rounds 5] [--threads 1] [--out FILE]
    python experiments/speed/feature_cache.py --quick         # seconds; tiny models, to see that it runs

Both read the same generated 640x480 JPEGs and train the same weights in turn, loading included; seconds are those of
the processor, which other work on the machine disturbs less, and with a GPU those that pass. The cache is filled by
the first run of a sweep over decoders; "other runs wait" is how long the next ones take to find it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import torch
from loading import make_photos
from measure import alternate, keep, machine, markdown, ratio
from training_step import TINY, configured

from easycap.data.features import CachedFeatures
from easycap.data.loader import TrainLoader
from easycap.tasks.base import Task
from easycap.tasks.feature_caching import cached_view
from easycap.tasks.training import optimization, training_loader
from easycap.train import create_task
from easycap.training.distributed import SINGLE_PROCESS
from easycap.training.step import TrainStep
from easycap.types import Batch

PHOTOS = 32
RUNS = {
    "GPT-2 small": ["decoder=causal_lm"],
    "LSTM, as Show and Tell": ["decoder=lstm", "image_tokens=split", "image_tokens.count=1"],
    "Transformer": ["decoder=transformer", "image_tokens=all"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", type=torch.device, default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--images", type=int, default=16, help="images of a step (%(default)s)")
    parser.add_argument("--captions", type=int, default=1, help="captions of each image (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["EASYCAP_CACHE"] = f"{scratch}/cache"
        photos = Path(scratch) / "photos"
        photos.mkdir()
        for photo in make_photos(photos, PHOTOS).iterdir():
            photo.with_suffix(".txt").write_text(
                "\n".join(f"a photo of {' thing' * n}" for n in range(2, 18))
            )
        runs = {name: run for name, run in RUNS.items() if not options.quick or run[0] == "decoder=lstm"}
        rows = [measure(name, run, photos, options) for name, run in runs.items()]
    print(markdown([as_text(row) for row in rows]))
    keep(options.out, {"machine": machine(options.device), "load_average": os.getloadavg(), "rows": rows})


def measure(name: str, decoder: list[str], photos: Path, options: argparse.Namespace) -> dict[str, Any]:
    overrides = [
        "experiment=easycap/coco", "encoder.pretrained=false", *decoder, "data=folder", f"data.images={photos}",
        "data.captions=null", f"trainer.batch_size={options.images}", f"trainer.captions_per_image={options.captions}",
        "trainer.unfreeze_encoder_at_epoch=null", "trainer.workers=0", f"device={options.device}",
    ]  # fmt: skip
    overrides += [setting for setting in TINY if options.quick and setting.startswith("encoder.")]
    task = create_task(configured([*overrides, "trainer.cache_features=true"], options.precision))
    task.model.freeze_encoder(True)
    clock = time.process_time if options.device.type == "cpu" else time.perf_counter
    started = clock()
    features = cached_view(task, None, more_runs=False)
    waited = clock() - started
    steps = {"cache": step_of(task, features), "encoder": step_of(task, None)}
    seconds = alternate(steps, rounds=options.rounds, clock=clock, device=options.device)
    return {
        "decoder": name,
        "images": options.images,
        "captions": options.captions,
        "precision": options.precision,
        "seconds": seconds,
        "ratio": ratio(seconds, "cache", "encoder"),
        "seconds_until_cached": waited,
        "images_cached": sum(len(cache.examples) for cache in features.caches),
    }


def step_of(task: Task, features: CachedFeatures | None) -> Callable[[], Any]:
    """Load the next batch, of cached features or of images, and take a training step on it."""
    loader = training_loader(task, features)
    take = TrainStep(
        task.trainer_config,
        model=task.model.train(),
        objective=task.objective(),
        optimization=optimization(task, task.trainer_config.total_steps(loader)),
        pad_id=task.vocabulary.pad_id,
        device=task.device,
        ranks=SINGLE_PROCESS,
    )
    batches, steps = endless(loader), count()
    return lambda: take([next(batches)], next(steps))


def endless(loader: TrainLoader) -> Iterator[Batch]:
    for epoch in count():
        yield from loader.epoch(epoch)


def as_text(row: dict[str, Any]) -> dict[str, str]:
    seconds = {name: sorted(times)[len(times) // 2] for name, times in row["seconds"].items()}
    return {
        "decoder": row["decoder"],
        "from the cache, s": f"{seconds['cache']:.2f}",
        "encoding anew, s": f"{seconds['encoder']:.2f}",
        "times as fast (range)": "{median:.2f} ({low:.2f} to {high:.2f})".format(**row["ratio"]),
        f"until {row['images_cached']} images are cached, s": f"{row['seconds_until_cached']:.2f}",
    }


if __name__ == "__main__":
    main()
