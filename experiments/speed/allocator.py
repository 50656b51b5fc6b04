"""Time, kernel time and peak memory of steps on a CPU, with glibc's own malloc thresholds and with easycap's.

Each figure is of a process of its own; the two ways alternate. The models are untrained: a step of the
quickstart, 32 images through a frozen EfficientNet-Lite0 as a feature cache is filled, a step of the full model.

    python experiments/speed/allocator.py                       # minutes; wants a quiet machine
    python experiments/speed/allocator.py --quick               # seconds; tiny, to see that it runs
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import keep, machine, markdown

from easycap.utils.allocator import keep_freed_memory

WAYS = ("default", "easycap")
WORK = ("quickstart", "frozen", "full")
FROZEN = "tf_efficientnet_lite0"


def main() -> None:
    options = parse()
    if options.child:
        print(json.dumps(measured(options)))
        return
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for work in options.work:
        runs[work] = {way: [] for way in WAYS}
        for number in range(options.rounds):
            for way in WAYS if number % 2 == 0 else reversed(WAYS):
                runs[work][way].append(in_a_process(work, way, options.quick))
    rows = [summary(work, of) for work, of in runs.items()]
    print(markdown([as_text(row) for row in rows]))
    keep(options.out, {"machine": machine(), "rows": rows, "runs": runs})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--rounds", type=int, default=3, help="processes of each way (%(default)s)")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    return parser.parse_args()


def in_a_process(work: str, way: str, quick: bool) -> dict[str, Any]:
    command = [sys.executable, __file__, "--work", work, "--child", way, *["--quick"] * quick]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Images/s, the kernel's share of the processor time, and peak memory in MiB of this process."""
    state = keep_freed_memory() if options.child == "easycap" else "unchanged"
    work, images, count = work_of(options.work[0], options.quick)
    work()
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(count):
        work()
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    system, user = after.ru_stime - before.ru_stime, after.ru_utime - before.ru_utime
    return {
        "allocator": state,
        "images_per_second": images * count / seconds,
        "system_share": system / (system + user),
        "peak_mib": after.ru_maxrss / 1024,
    }


def work_of(name: str, quick: bool) -> tuple[Callable[[], Any], int, int]:
    """Return what to time, the images of one call, and how many calls."""
    # Imported by the process that measures alone: the one that starts it needs no model.
    import torch
    from encoder import UNTRAINED, caching, trained
    from training_step import FULL, TINY, captioner_of, configured, our_step, random_batch

    from easycap.models.encoders.timm import TimmEncoder
    from easycap.models.image_model import ImageModel
    from easycap.training.hardware import Precision, training_precision

    if name == "frozen":
        model = trained(ImageModel(TimmEncoder(model=FROZEN, image_size=224, **UNTRAINED)))
        images = torch.zeros(4 if quick else 32, 3, 224, 224, dtype=torch.uint8)
        return caching(model, images), len(images), 2 if quick else 36
    quickstart = name == "quickstart"
    overrides = ["experiment=easycap/quickstart"] if quickstart else FULL + TINY * quick
    precision = training_precision(Precision.auto, torch.device("cpu")).name
    config = configured(overrides, precision)
    captioner = captioner_of(config, 400 if quickstart else 15_000)
    count, captions = (32, 3) if quickstart else (4 if quick else 16, 1)
    batch = random_batch(captioner, count, captions, 400)
    return our_step(config, captioner, batch), count, 2 if quick else 40 if quickstart else 4


def summary(work: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians per way, and the rounds' ratios of easycap's to default's: median, lowest, highest."""
    row: dict[str, Any] = {"work": work}
    for name in ("images_per_second", "system_share", "peak_mib"):
        of = {way: [run[name] for run in runs[way]] for way in WAYS}
        ratios = [b / a if a else float("nan") for a, b in zip(*of.values(), strict=True)]
        row[name] = {way: statistics.median(values) for way, values in of.items()}
        row[name]["ratio"] = [statistics.median(ratios), min(ratios), max(ratios)]
    return row


def as_text(row: dict[str, Any]) -> dict[str, str]:
    texts = {"work": row["work"]}
    for name, form in (
        ("images_per_second", "{:.1f}"),
        ("system_share", "{:.0%}"),
        ("peak_mib", "{:,.0f}"),
    ):
        for way in WAYS:
            texts[f"{name.replace('_', ' ')}, {way}"] = form.format(row[name][way])
        if name != "system_share":
            texts[f"{name.replace('_', ' ')}, ratio"] = "{:.2f} ({:.2f} to {:.2f})".format(
                *row[name]["ratio"]
            )
    return texts


if __name__ == "__main__":
    main()
