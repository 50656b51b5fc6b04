"""Images/s of the quickstart's training alone and next to a busy process: all threads, as before, and as chosen.

Every figure is of a process of its own: `default` computes with torch's own number of threads, `chosen` tries
one and all on its first batch as a run does, `one` computes with one. The busy process is one Python loop. Ways
and company alternate.

    python experiments/speed/threads.py                    # minutes; wants a machine that is quiet otherwise
    python experiments/speed/threads.py --rounds 1 --steps 2 --batch 4          # to see that it runs
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from measure import keep, machine, markdown
from training_step import captioner_of, configured, random_batch, training_of

from easycap.training.hardware import Precision, training_precision
from easycap.training.memory import first_images
from easycap.utils.allocator import keep_freed_memory
from easycap.utils.cpu_threads import VARIABLES, max_threads, try_threads

WAYS = ("default", "chosen", "one")
COMPANY = ("alone", "busy")


def main() -> None:
    options = parse()
    if options.child:
        print(json.dumps(measured(options)))
        return
    runs: dict[tuple[str, str], list[dict[str, float]]] = {(c, w): [] for c in COMPANY for w in WAYS}
    for number in range(options.rounds):
        for company, way in runs if number % 2 == 0 else reversed(runs):
            with busy(company == "busy"):
                runs[company, way].append(in_a_process(way, options))
    rows = [summary(company, way, runs) for company, way in runs]
    print(markdown([as_text(row) for row in rows]))
    every = [{"company": c, "way": w, "runs": found} for (c, w), found in runs.items()]
    keep(options.out, {"machine": machine(), "rows": rows, "runs": every})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="processes of each kind (%(default)s)")
    parser.add_argument("--steps", type=int, default=30, help="steps that are timed (%(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="images in a batch (%(default)s)")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    return parser.parse_args()


@contextmanager
def busy(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def in_a_process(way: str, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", way]
    command += ["--steps", str(options.steps), "--batch", str(options.batch)]
    own = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(command, env=own, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(options: argparse.Namespace) -> dict[str, Any]:
    keep_freed_memory()
    config = configured(
        ["experiment=easycap/quickstart"], training_precision(Precision.auto, torch.device("cpu")).name
    )
    captioner = captioner_of(config, 400)
    batch = random_batch(captioner, options.batch, config["trainer"]["captions_per_image"], 400)
    fit = training_of(config, captioner, batch)
    started = time.perf_counter()
    if options.child == "one":
        torch.set_num_threads(1)
    elif options.child == "chosen":
        torch.set_num_threads(chosen(fit, batch))
    trial = time.perf_counter() - started
    fit.train_step([batch])
    started = time.perf_counter()
    for _ in range(options.steps):
        fit.train_step([batch])
    speed = options.steps * options.batch / (time.perf_counter() - started)
    return {"images_per_second": speed, "threads": torch.get_num_threads(), "trial_seconds": trial}


def chosen(fit: Any, batch: Any) -> int:
    """The number that a run of the quickstart's length would take."""
    with fit.take_step.without_effect():
        trial = try_threads(
            lambda count: fit.take_step.try_pass(first_images(batch, count)),
            (max_threads(), 1),
            images=len(batch.image_ids),
            ahead=2_100 * 32,
        )
    return trial.fastest or max_threads()


def summary(company: str, way: str, runs: dict[tuple[str, str], list[dict[str, float]]]) -> dict[str, Any]:
    """Median, lowest and highest images/s, and as a share of default alone in the same round."""
    speeds = [run["images_per_second"] for run in runs[company, way]]
    alone = [run["images_per_second"] for run in runs["alone", "default"]]
    shares = [own / other for own, other in zip(speeds, alone, strict=True)]
    return {
        "company": company,
        "way": way,
        "images_per_second": spread(speeds),
        "share_of_default_alone": spread(shares),
        "threads": [run["threads"] for run in runs[company, way]],
        "trial_seconds": max(run["trial_seconds"] for run in runs[company, way]),
    }


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def as_text(row: dict[str, Any]) -> dict[str, str]:
    return {
        "": row["company"],
        "threads": f"{row['way']}: {', '.join(map(str, sorted(set(row['threads']))))}",
        "images/s": "{median:.0f} ({low:.0f} to {high:.0f})".format(**row["images_per_second"]),
        "of default alone": "{median:.2f} ({low:.2f} to {high:.2f})".format(**row["share_of_default_alone"]),
        "trial, s": f"{row['trial_seconds']:.1f}" if row["way"] == "chosen" else "-",
    }


if __name__ == "__main__":
    main()
