"""Where the time of the quickstart's training step goes, part by part.

Real batches of the recipe (32 images x 3 captions of generated scenes) and the product's own step. Forward and backward
are told apart by when gradients reach the borders between parts.

    python experiments/speed/step_profile.py                               # a minute; wants a quiet machine
    python experiments/speed/step_profile.py --threads 1 --clock cpu       # next to other work
    python experiments/speed/step_profile.py --quick                       # seconds: to see that it runs
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from measure import keep, machine, markdown

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.runs.run_folder import RunFolder
from easycap.runs.trackers import FileTracker
from easycap.tasks.training import make_trainer
from easycap.train import create_task
from easycap.training import muon
from easycap.training.trainer import Trainer
from easycap.types import Batch
from easycap.utils.allocator import keep_freed_memory

RECIPE = ["experiment=easycap/quickstart", "tracking=none", "device=cpu"]
# Few images, as real captions are what matters; the vocabulary is as good as complete.
DATA = ["data.train_images=1600", "data.val_images=8", "data.test_images=8"]
QUICK = ["data.train_images=96", "data.size=32", "encoder.image_size=32", "encoder.widths=[8,16]"]
QUICK += ["decoder.width=16", "decoder.num_layers=1"]
PARTS = (
    "data",
    "encoder, forward",
    "image tokens, forward",
    "decoder, forward",
    "output layer and loss, forward",
    "output layer and loss, backward",
    "decoder, backward",
    "image tokens, backward",
    "encoder, backward",
    "Newton-Schulz",
    "rest of Muon",
    "AdamW",
    "clipping",
    "rest",
)


class Parts:
    """Seconds by part: `lap` gives what passed since the last lap to a part, if a step is being timed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock, self.last = clock, clock()
        self.seconds: dict[str, float] = defaultdict(float)

    def begin(self) -> None:
        self.seconds.clear()
        self.last = self.clock()

    def lap(self, part: str) -> None:
        now = self.clock()
        self.seconds[part] += now - self.last
        self.last = now

    def around(self, owner: Any, name: str, before: str, part: str) -> None:
        """Give the time of a call of owner.name to `part`, what passed before it to `before`."""
        original = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.lap(before)
            result = original(*args, **kwargs)
            self.lap(part)
            return result

        setattr(owner, name, timed)

    def at_gradient(self, tensor: torch.Tensor, part: str) -> None:
        """End `part` when the gradient of a border between two parts is known."""
        if tensor.requires_grad:
            tensor.register_hook(lambda grad: self.lap(part))


def watch(fit: Trainer, parts: Parts) -> None:
    """Put laps around everything that a step does."""
    captioner = fit.model

    def after_encoder(_module: Any, _args: Any, features: Any) -> None:
        parts.lap("encoder, forward")
        parts.at_gradient(features.patches, "image tokens, backward")

    def after_tokens(_module: Any, _args: Any, found: Any) -> None:
        parts.lap("image tokens, forward")
        parts.at_gradient(found[0], "decoder, backward")

    def before_output(_module: Any, args: Any) -> None:
        parts.lap("decoder, forward")
        parts.at_gradient(args[0], "output layer and loss, backward")

    captioner.encoder.register_forward_hook(after_encoder)
    captioner.image_tokens.register_forward_hook(after_tokens)
    captioner.decoder.lm.get_output_embeddings().register_forward_pre_hook(before_output)
    step = fit.take_step
    parts.around(step.optimization, "backward", "output layer and loss, forward", "encoder, backward")
    parts.around(step, "clip_gradients", "rest", "clipping")
    parts.around(muon, "orthogonalize", "rest of Muon", "Newton-Schulz")
    first, second = fit.optimization.optimizers
    parts.around(first, "step", "rest", "rest of Muon")
    parts.around(second, "step", "rest", "AdamW")


@contextmanager
def training(overrides: list[str]) -> Iterator[Trainer]:
    """A training of the recipe, ready for its first step."""
    task = create_task(check(compose([*RECIPE, *overrides])[0]))
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch), command="")
        fit = make_trainer(task, None, tracker=FileTracker(folder), checkpoints=folder.path / "checkpoints")
        fit.model.to(fit.device).train()
        fit.freeze_or_release_encoder()
        yield fit


def endless(fit: Trainer) -> Iterator[list[Batch]]:
    while True:
        yield from fit.epochs.batches(fit.state)
        fit.state.epoch += 1


def profile(fit: Trainer, steps: int, clock: Callable[[], float]) -> list[dict[str, float]]:
    """Return the seconds of each part, step by step."""
    parts, rows = Parts(clock), []
    watch(fit, parts)
    warm_up = 3
    batches = endless(fit)
    for number in range(warm_up + steps):
        parts.begin()
        group = next(batches)
        parts.lap("data")
        fit.train_step(group)
        fit.state.step += 1
        parts.lap("rest")
        if number >= warm_up:
            rows.append(dict(parts.seconds))
    return rows


def kernels(fit: Trainer, steps: int) -> str:
    """torch's own profile of a few steps, by operation."""
    with torch.profiler.profile() as found:
        for group in islice(endless(fit), steps):
            fit.train_step(group)
            fit.state.step += 1
    return found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=45)


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_memory()
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    overrides = [*DATA, *(QUICK if options.quick else []), *options.overrides]
    with training(overrides) as fit:
        precision = fit.settings.precision.name
        rows = profile(fit, options.steps, clock)
    whole = statistics.median(sum(row.values()) for row in rows)
    medians = {part: statistics.median(row.get(part, 0.0) for row in rows) for part in PARTS}
    print(markdown([as_text(part, seconds, whole) for part, seconds in medians.items()]))
    images = fit.settings.batch_size
    print(
        f"\n{precision}, {options.clock} time: {1e3 * whole:.1f} ms per step, {images / whole:.0f} images/s"
    )
    if options.kernels:
        with training(overrides) as fit:
            print(kernels(fit, 5))
    result = {"machine": machine(), "precision": precision, "clock": options.clock}
    keep(options.out, result | {"seconds_per_step": whole, "parts": medians})


def as_text(part: str, seconds: float, whole: float) -> dict[str, str]:
    return {"part": part, "ms": f"{1e3 * seconds:.1f}", "share": f"{seconds / whole:.0%}"}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="settings, as of easycap train")
    parser.add_argument("--quick", action="store_true", help="a tiny model")
    parser.add_argument("--steps", type=int, default=40, help="timed steps (%(default)s)")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--kernels", action="store_true", help="torch's profile by operation as well")
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
