"""Kill a short run with SIGKILL at random moments, resume it, and compare its bits with a run left alone."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.train import train
from easycap.training.checkpoint_files import read_progress

# Four epochs of six steps of two batches on 32-pixel scenes; dropout, so that random numbers matter.
SHORT_RUN = [
    "data.size=32", "data.train_images=48", "data.val_images=6", "data.test_images=6", "data.workers=1",
    "encoder.image_size=32", "encoder.widths=[8,16]", "image_tokens.count=2", "image_tokens.num_heads=2",
    "decoder.width=16", "decoder.num_heads=2", "decoder.num_layers=1", "decoder.dropout=0.1",
    "trainer.batch_size=4", "trainer.accumulate=2", "trainer.epochs=4", "trainer.checkpoint_every_steps=4",
    "trainer.precision=fp32", "trainer.log_every_steps=1", "trainer.captions_per_image=1",
    "validation.images=6", "validation.batch_size=3", "validation.samples=2", "device=cpu", "tracking=none",
]  # fmt: skip


def main() -> int:
    options = parse()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["EASYCAP_CACHE"] = str(Path(scratch) / "cache")
        start(Path(scratch) / "warm-up", 0)()  # draws the scenes, which a killed run would draw again
        seconds = time_of(Path(scratch) / "whole")
        wanted = left_behind(Path(scratch) / "whole")
        moments = random.Random(options.seed)
        rows = []
        for number in range(1, options.kills + 1):
            workers = 0 if number % 2 else 2
            path = Path(scratch) / f"run-{number}"
            since = "start" if number <= options.kills // 4 else "first step"
            delay, phase = kill(path, workers, since, moments.random() * seconds[since], moments)
            start(path, workers)()
            same = left_behind(path) == wanted
            rows.append(
                [str(number), str(workers), f"{delay:.2f} s after {since}", phase, "yes" if same else "NO"]
            )
            print(*rows[-1], sep="  ", file=sys.stderr)
    text = table(["kill", "loader workers", "when", "killed", "bit-identical"], rows)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    return int(any(row[-1] == "NO" for row in rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="write the table there")
    return parser.parse_args()


def start(path: Path, workers: int) -> Callable[[], None]:
    """Begin a run, or resume it, in a process of its own; return what waits for its end."""
    child = os.fork()
    if child == 0:
        run(path, workers)

    def wait() -> None:
        _, status = os.waitpid(child, 0)
        if status != 0:
            raise SystemExit(f"the run in {path} failed: {(path / 'log').read_text()[-2000:]}")

    wait.child = child
    return wait


def run(path: Path, workers: int) -> None:
    """What the child process does; it never returns."""
    path.mkdir(parents=True, exist_ok=True)
    log = os.open(path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    try:
        if (path / "config.yaml").exists():
            config = check(OmegaConf.load(path / "config.yaml")) | {"resume": str(path)}
        else:
            config = check(compose([*SHORT_RUN, f"trainer.workers={workers}"])[0])
        train(config, path, command="easycap train ...")
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def time_of(path: Path) -> dict[str, float]:
    """Let a run come to its end; return the seconds it took since its start and since its first step."""
    began = time.monotonic()
    wait = start(path, 0)
    wait_for_first_step(path)
    stepped = time.monotonic()
    wait()
    return {"start": time.monotonic() - began, "first step": time.monotonic() - stepped}


def wait_for_first_step(path: Path) -> None:
    while not measurements(path):
        time.sleep(0.005)


def kill(path: Path, workers: int, since: str, delay: float, moments: random.Random) -> tuple[float, str]:
    """Begin a run and kill it `delay` seconds after its start or first step; return the delay and the phase.

    A run that had ended by then was faster than the one timed; it does not count and another one is begun.
    """
    while True:
        wait = start(path, workers)
        if since == "first step":
            wait_for_first_step(path)
        time.sleep(delay)
        os.kill(wait.child, signal.SIGKILL)
        _, status = os.waitpid(wait.child, 0)
        if os.WIFSIGNALED(status):
            return delay, phase_of(path)
        shutil.rmtree(path)
        delay *= moments.random()


def phase_of(path: Path) -> str:
    """Say from what lies in a killed run's folder what it was doing."""
    checkpoints = path / "checkpoints"
    if not (path / "config.yaml").exists():
        return "before the run's config was written"
    for name in ("last", "best"):
        if (checkpoints / f".{name}.partial").exists():
            return f"while saving {name}"
        if (checkpoints / f"{name}.previous").exists() and not (checkpoints / name).exists():
            return f"saving {name}, between two renames"
    measured = measurements(path)
    if not measured:
        return "before the first step"
    if not (checkpoints / "last").exists():
        return f"step {measured[-1]['step']}, before the first checkpoint"
    saved = read_progress(checkpoints / "last")
    if saved["epoch"] == 4:
        return "in the evaluation on the test splits"
    if measured[-1]["step"] > saved["step"]:
        return (
            f"step {measured[-1]['step']}, {measured[-1]['step'] - saved['step']} after the last checkpoint"
        )
    if saved["step"] == 6 * (saved["epoch"] + 1):
        return f"in the validation after epoch {saved['epoch'] + 1}"
    return f"step {saved['step']}, just after a checkpoint"


def measurements(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock measured; a line cut short by the kill is left out."""
    lines = []
    file = path / "metrics.jsonl"
    for text in file.read_text().split("\n") if file.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        lines.append({k: v for k, v in line.items() if k not in ("seconds", "train/images_per_second")})
    return lines


def left_behind(path: Path) -> dict[str, Any]:
    """Everything that must not depend on a kill."""
    files = ["captions.test.json", "captions.test_novel.json"]
    files += [f"checkpoints/{name}/model.safetensors" for name in ("last", "best")]
    files += ["checkpoints/last/training.safetensors"]
    hashes = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in files}
    return hashes | {"metrics": measurements(path)}


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    raise SystemExit(main())
