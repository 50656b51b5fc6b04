"""A training step of two ranks on one CPU: gradients by DDP, by the sum used before, by FSDP2, and with no exchange.

    python experiments/speed/gradients.py --out experiments/speed/results/gradients.json      # minutes
    python experiments/speed/gradients.py --quick                                    # to see that it runs

The ways alternate within the same two processes of one thread each, on models of equal weights and the same batches:
cross entropy of a GPT-2 with a small encoder, clipping, and AdamW or Muon. `sum` adds up gradients after the backward
pass, in messages of 64 MB, as training did before it used DDP, with the further small messages of that time. `alone`
exchanges nothing. Copies are the bytes that tensor operations write for the exchange: those of a step less those of a
step alone. Memory is what a rank of a fresh process needs beyond that before its model is built, at its peak.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from measure import keep, machine, markdown, ratio
from torch import nn
from torch.profiler import ProfilerActivity, profile
from training_step import IDS, captioner_of, configured, random_batch

from easycap.config.instantiate import build
from easycap.training.distributed import SINGLE_PROCESS, Ranks, init_distributed
from easycap.training.gradients import Gradients, Loss, ObjectiveModule, gradients_of
from easycap.training.parts import own_rows
from easycap.training.step import TrainStep
from easycap.types import Batch
from easycap.utils.allocator import keep_freed_memory

ALONE, SUM, DDP, FSDP = "alone", "sum", "DDP", "FSDP2"
SIZES = [
    "encoder=small",
    "decoder=gpt2_tiny",
    "decoder.width=384",
    "decoder.num_layers=4",
    "decoder.num_heads=6",
]
QUICK = ["encoder=small", "decoder=gpt2_tiny", "decoder.width=32"]
LARGE = [
    *SIZES,
    "decoder.width=768",
    "decoder.num_layers=12",
    "decoder.num_heads=12",
]  # GPT-2 small, for memory
WORDS, QUICK_WORDS = 5_000, 50
BUCKET_BYTES = 64 * 2**20
# Operations that copy gradients into messages and out of them; DDP divides as it copies.
COPIES = {"aten::copy_", "aten::cat", "aten::mul", "aten::div_"}


class Sum(Gradients):
    """Gradients added up after the backward pass."""

    def __init__(self, module: ObjectiveModule, ranks: Ranks) -> None:
        super().__init__(module)
        self.ranks = ranks

    def loss(self, batch: Batch) -> Loss:
        loss, parts = self.module.loss(batch)
        return loss / self.ranks.world_size, parts  # a step multiplies, as DDP takes the mean

    @contextmanager
    def accumulate(self, *, last: bool) -> Iterator[None]:
        yield
        if last:
            parameters = [p for p in self.module.parameters() if p.requires_grad]
            used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
            dist.all_reduce(used, op=dist.ReduceOp.MAX)
            for bucket in buckets([p.grad for p in parameters if p.grad is not None]):
                flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
                dist.all_reduce(flat)
                pieces = flat.split([gradient.numel() for gradient in bucket])
                for gradient, piece in zip(bucket, pieces, strict=True):
                    gradient.copy_(piece.view_as(gradient))
            self.ranks.all_gather(0)  # whether a rank was asked to stop


def buckets(tensors: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    bucket: list[torch.Tensor] = []
    for tensor in tensors:
        if bucket and sum(4 * t.numel() for t in bucket) >= BUCKET_BYTES:
            yield bucket
            bucket = []
        bucket.append(tensor)
    yield bucket


def step_of(way: str, optim: str, ranks: Ranks, options: argparse.Namespace) -> tuple[Callable, nn.Module]:
    """A training step on this rank's part of a batch, and its model."""
    words = QUICK_WORDS if options.quick else WORDS
    sizes = QUICK if options.quick else LARGE if options.large else SIZES
    sizes = [*sizes, "decoder.max_positions=64", f"optim={optim}"]
    config = configured(sizes, "fp32")
    model = captioner_of(config, words).train()
    objective = build("objective", config["objective"], **IDS)
    torch.manual_seed(ranks.rank)
    batch = random_batch(model, options.images, 2, words)
    module = ObjectiveModule(model, objective)
    gradients = Sum(module, ranks) if way == SUM else gradients_of(module, ranks, shard=way == FSDP)
    if way == ALONE:
        gradients, ranks = Gradients(module), SINGLE_PROCESS
    take = TrainStep(
        build("trainer", config["trainer"]),
        model=model,
        objective=objective,
        optimization=build("optim", config["optim"])(model, lambda step: 1.0),
        pad_id=IDS["pad_id"],
        device=torch.device("cpu"),
        ranks=ranks,
        gradients=gradients,
    )
    if way == SUM:  # at that time each rank orthogonalised all matrices
        for optimizer in take.optimization.optimization.optimizers:
            if hasattr(optimizer, "share_work"):
                optimizer._shared = False

    def step() -> None:
        take([batch], 0)
        dist.barrier()

    return step, model


def times(ranks: Ranks, options: argparse.Namespace) -> dict[str, Any]:
    found = {}
    for optim in options.optim:
        ways = [ALONE, SUM, DDP, FSDP]
        made = {way: step_of(way, optim, ranks, options) for way in ways}
        seconds, cpu = alternate({way: step for way, (step, _) in made.items()}, rounds=options.rounds)
        counted = {way: counts(step) for way, (step, _) in made.items()}
        for way in ways:
            counted[way]["bytes copied"] -= counted[ALONE]["bytes copied"] if way != ALONE else 0
        found[optim] = {
            "parameters": sum(p.numel() for p in made[ALONE][1].parameters()),
            "time over alone": {way: ratio(seconds, ALONE, way) for way in ways[1:]},
            "CPU time over alone": {way: ratio(cpu, ALONE, way) for way in ways[1:]},
            "time over DDP": {way: ratio(seconds, DDP, way) for way in (SUM, FSDP)},
            "CPU time over DDP": {way: ratio(cpu, DDP, way) for way in (SUM, FSDP)},
            "counts": {way: counted[way] for way in ways[1:]},
        }
    return found


def alternate(
    steps: dict[str, Callable[[], None]], *, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds by the clock, and of this process's CPU time, {way: one per round}: in turn, reversed every round."""
    wall: dict[str, list[float]] = {way: [] for way in steps}
    cpu: dict[str, list[float]] = {way: [] for way in steps}
    for step in steps.values():
        step()  # to warm up; DDP orders its messages after a first step
        step()
    for number in range(rounds):
        for way in steps if number % 2 == 0 else reversed(steps):
            started = time.perf_counter(), time.process_time()
            steps[way]()
            wall[way].append(time.perf_counter() - started[0])
            cpu[way].append(time.process_time() - started[1])
    return wall, cpu


def counts(step: Callable[[], None]) -> dict[str, int]:
    """Collectives of a step by kind, less the benchmark's own barrier, and the bytes that its copies write."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True) as found:
        step()
    kinds: dict[str, int] = {}
    copied = 0
    for event in found.events():
        if event.name.startswith("gloo:") and event.name != "gloo:barrier":
            kinds[event.name.removeprefix("gloo:")] = kinds.get(event.name.removeprefix("gloo:"), 0) + 1
        if event.name in COPIES and event.input_shapes:
            copied += 4 * elements(event.input_shapes[0])
    return {"collectives": kinds, "bytes copied": copied}


def elements(shape: list) -> int:
    """Of one tensor, or of a list of them."""
    if shape and isinstance(shape[0], list):
        return sum(map(elements, shape))
    return int(torch.Size(shape).numel()) if shape else 1


def memory(ranks: Ranks, options: argparse.Namespace) -> dict[str, float]:
    """MB of this rank: its weights, and the peak of three steps beyond what torch itself imports."""
    for name in ("torch._dynamo", "torch.distributed.tensor", "torch.distributed.fsdp"):
        importlib.import_module(name)
    before = resident("VmRSS")
    step, model = step_of(options.way, options.optim[0], ranks, options)
    held = sum(4 * own_rows(p.detach()).numel() for p in model.parameters())
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(3):
        step()
    return {"weights": held / 1e6, "peak": (resident("VmHWM") - before) / 1e6}


def resident(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def work(options: argparse.Namespace) -> None:
    """What each of the two processes does."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as every command does
    with init_distributed() as ranks:
        found = times(ranks, options) if options.way is None else memory(ranks, options)
        if ranks.is_main:
            options.out.write_text(json.dumps(found))


def on_two_ranks(options: argparse.Namespace, *more: str) -> Any:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    asked = [
        *more,
        "--images",
        str(options.images),
        "--rounds",
        str(options.rounds),
        "--optim",
        *options.optim,
    ]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, __file__, "--worker", *asked, "--out", str(out)]
        command += ["--quick"] * options.quick
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        places = [{**os.environ, **shared, "RANK": str(n), "LOCAL_RANK": str(n)} for n in range(2)]
        processes = [subprocess.Popen(command, env=place) for place in places]
        if any([process.wait() for process in processes]):
            raise SystemExit("a rank failed")
        return json.loads(out.read_text())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tiny model")
    parser.add_argument(
        "--images", type=int, default=2, help="images of each rank, 2 captions each (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=15, help="timings of each (%(default)s)")
    parser.add_argument("--optim", nargs="+", default=["adamw", "muon"])
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--large", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.worker:
        work(options)
        return
    load = os.getloadavg()
    found = on_two_ranks(options)
    per_rank = {way: on_two_ranks(options, "--way", way) for way in (DDP, FSDP)}
    if not options.quick:
        per_rank |= {
            f"{way}, GPT-2 small": on_two_ranks(options, "--way", way, "--large") for way in (DDP, FSDP)
        }
    print(markdown([row for optim, one in found.items() for row in rows_of(optim, one)]))
    rows = [
        {"a rank's MB": way} | {name: f"{mb:.0f}" for name, mb in of.items()} for way, of in per_rank.items()
    ]
    print("\n" + markdown(rows))
    result = {"machine": machine() | {"threads per rank": 1}, "images per rank": options.images}
    keep(
        options.out,
        result | {"load_average": [load, os.getloadavg()], "steps": found, "MB per rank": per_rank},
    )


def rows_of(optim: str, found: dict[str, Any]) -> Iterator[dict[str, str]]:
    for way, counted in found["counts"].items():
        collectives = counted["collectives"]
        yield {
            "optimiser": optim,
            "gradients": way,
            "time over a step alone (range)": as_text(found["time over alone"][way]),
            "CPU time": as_text(found["CPU time over alone"][way]),
            "collectives": f"{sum(collectives.values())}: "
            + ", ".join(f"{count} {kind}" for kind, count in sorted(collectives.items())),
            "MB copied": f"{counted['bytes copied'] / 1e6:.1f}",
        }
    for clock in ("time", "CPU time"):
        ratios = ", ".join(f"{way} {as_text(of)}" for way, of in found[f"{clock} over DDP"].items())
        print(f"{optim}, {found['parameters'] / 1e6:.1f} million parameters, {clock} over DDP: {ratios}")


def as_text(found: dict[str, float]) -> str:
    return "{median:.2f} ({low:.2f} to {high:.2f})".format(**found)


if __name__ == "__main__":
    main()
