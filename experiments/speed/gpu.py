"""All that needs a GPU, in one run of at most ten minutes: the tests marked `gpu`, then the benchmarks on it.

    python experiments/speed/gpu.py --out build/gpu                     # or: make test-gpu
    python experiments/speed/gpu.py --out build/gpu --tiny              # tiny models, on a CPU too, to see that it runs

Each part is a process of its own. One that fails or takes too long is recorded, and the next one starts; the exit code
is then 1. OUT/gpu.json and OUT/gpu.md are written after every part.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from measure import keep, machine, markdown

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Tests that also run on a CPU, for --tiny where there is no GPU: a part of them is enough.
ON_CPU = ["tests/gpu/test_on_devices.py", "-m", "not slow and not gpu", "-k", "waits or optimisers"]


class Part(NamedTuple):
    """A command without its interpreter, `{out}` being the file for its result, and its minutes of ten at most."""

    name: str
    command: list[str]
    minutes: float


def parts(options: argparse.Namespace) -> list[Part]:
    """What is run, the most important first."""
    device = options.device

    def script(name: str, *arguments: str) -> list[str]:
        quick = ["--quick"] * (options.tiny and name != "loading.py")
        return [
            str(HERE / name),
            *arguments,
            *quick,
            "--rounds",
            "1" if options.tiny else "5",
            "--out",
            "{out}",
        ]

    full = ["--images", "2"] if options.tiny else ["--images", "64"]
    tests = ["tests", "-m", "gpu"] if device.type == "cuda" else ON_CPU
    nanovlm = ["--nanovlm", str(options.nanovlm.absolute())] if options.nanovlm else []
    on = ["--device", str(device)]
    found = [Part("tests", ["-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *tests], 4)]
    for precision in options.precisions:
        with_precision = [*on, "--precision", precision]
        found += [
            Part(f"training step, {precision}", script("training_step.py", *with_precision, *full), 1),
            Part(
                f"training step, 5 captions, {precision}",
                script("training_step.py", *with_precision, *full, "--captions", "5"),
                1,
            ),
            Part(f"decoding, {precision}", script("decoding.py", *with_precision, *full), 1.5),
        ]
    cached = ["--precision", options.precisions[-1], *full]
    found += [
        Part("peers", script("peers.py", *on, *nanovlm, *full), 3),
        Part("feature cache", script("feature_cache.py", *on, *cached, "--threads", "4"), 2),
        Part("loading", script("loading.py", "--count", "4" if options.tiny else "60"), 1),
    ]
    return [part for part in found if not options.only or any(name in part.name for name in options.only)]


def main() -> None:
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    about = machine(options.device) | {"device": str(options.device), "tiny": options.tiny}
    deadline = time.monotonic() + 60 * options.limit
    results: list[dict[str, Any]] = []
    for number, part in enumerate(parts(options)):
        seconds = min(6 * part.minutes * options.limit, deadline - time.monotonic())
        results.append(run(part, options.out / f"{number}.json", seconds))
        keep(options.out / "gpu.json", {"machine": about, "parts": results})
        (options.out / "gpu.md").write_text(as_markdown(about, results), encoding="utf-8")
        print(f"{part.name}: {results[-1]['outcome']}, {results[-1]['seconds']:.0f} s", flush=True)
    print(f"\n{as_markdown(about, results)}\n{options.out / 'gpu.json'}")
    sys.exit(any(result["outcome"] != "passed" for result in results))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--tiny", action="store_true", help="tiny models and one round; works on a CPU")
    parser.add_argument("--limit", type=float, default=10, help="minutes for everything (%(default)s)")
    parser.add_argument("--only", nargs="+", metavar="PART", help="parts whose names contain one of these")
    parser.add_argument("--nanovlm", type=Path, metavar="FOLDER", help="a checkout of nanoVLM, see peers.py")
    options = parser.parse_args()
    has_gpu = torch.cuda.is_available()
    if not has_gpu and not options.tiny:
        sys.exit(
            "torch finds no CUDA device on this machine: use one with a GPU, or --tiny to try this script"
        )
    options.device = torch.device("cuda" if has_gpu else "cpu")
    has_bf16 = has_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    options.precisions = ["fp32", "bf16"] if has_bf16 else ["fp32"]
    return options


def run(part: Part, out: Path, seconds: float) -> dict[str, Any]:
    """Run a part for at most so many seconds; return what came of it: passed, failed, or not finished in time."""
    result: dict[str, Any] = {"part": part.name, "outcome": "no time left", "seconds": 0.0}
    if seconds <= 1:
        return result
    command = [sys.executable, *(str(out) if word == "{out}" else word for word in part.command)]
    started = time.monotonic()
    # A session of its own, so that loader processes and ranks end with it.
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
        result["outcome"] = (
            "passed" if process.returncode == 0 else f"failed with exit code {process.returncode}"
        )
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        result["outcome"] = f"ended after {seconds:.0f} s"
    finally:
        if process.poll() is None:  # Ctrl-C
            os.killpg(process.pid, signal.SIGKILL)
    result |= {"seconds": time.monotonic() - started, "command": command[1:]}
    table = [line for line in output.splitlines() if line.startswith("|")]
    if result["outcome"] == "passed" and out.exists():
        result["result"] = json.loads(out.read_text(encoding="utf-8"))
    return result | {"table": table, "last_lines": output.splitlines()[-30:]}


def as_markdown(about: dict[str, Any], results: list[dict[str, Any]]) -> str:
    """Return the machine, a table of the parts, and each part's own table."""
    rows = [{"part": r["part"], "outcome": r["outcome"], "s": f"{r['seconds']:.0f}"} for r in results]
    texts = [", ".join(f"{name} {value}" for name, value in about.items()), markdown(rows)]
    for result in results:
        if result["outcome"] != "passed":
            said = ["```", *result.get("last_lines", []), "```"]
            texts.append("\n".join([f"## {result['part']}: {result['outcome']}", *said]))
        elif result["table"]:
            texts.append("\n".join([f"## {result['part']}", "", *_last_table(result["table"])]))
    return "\n\n".join(texts) + "\n"


def _last_table(lines: list[str]) -> list[str]:
    """The last table among lines of tables: some scripts print rows as they are measured."""
    begins = [number for number, line in enumerate(lines) if set(line) <= set("|- ")]
    return lines[begins[-1] - 1 :] if begins else lines


if __name__ == "__main__":
    main()
