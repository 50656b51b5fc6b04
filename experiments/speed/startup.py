"""What commands cost until they answer: --help, score, caption of a photo, train until its first step, a dry run.

    python experiments/speed/startup.py --out experiments/speed/results/startup.json

Each round starts a new process of every command and takes its CPU seconds, user's and system's: other work on the
machine changes them less than the time that passes (`--wall`). With `--before PYTHON`, the interpreter of another
checkout's environment, that one's processes take turns with ours. `--imports` prints instead what a command's imports
cost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from measure import alternate, keep, machine, markdown, ratio

_WORDS = "a man dog cat runs sits on in the red big park ball with two people near table of street".split()
# Ends the process where the first step of training is done.
_FIRST_STEP = """
import os, sys
from easycap.training.progress import TrainingProgress
TrainingProgress.advance = lambda *args: os._exit(0)
from easycap.cli import main
sys.exit(main(sys.argv[1:]))
"""
_CLI = "import sys; from easycap.cli import main; sys.exit(main(sys.argv[1:]))"
_SMALL = [
    "data.train_images=64", "data.val_images=8", "data.test_images=8", "trainer.epochs=1", "validation.images=8",
    "tracking=none", "device=cpu",
]  # fmt: skip
_CAPTION = "caption, one photo"
_PLAN = "dry run of 1,000 runs"
_AIMS = {
    "--help": 0.3,
    "score, 2 captions": 0.6,
    _CAPTION: 3.0,
    "train until its first step": 5.0,
    _PLAN: 10.0,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--before", type=Path, metavar="PYTHON", help="python of another checkout's environment"
    )
    parser.add_argument("--wall", action="store_true", help="the time that passes instead of CPU seconds")
    parser.add_argument("--only", help="commands whose names contain this")
    parser.add_argument("--imports", action="store_true", help="print the imports of 20 ms and more instead")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        places = {"EASYCAP_CACHE": f"{scratch}/cache", "EASYCAP_OUTPUTS": f"{scratch}/outputs"}
        commands = commands_in(Path(scratch))
        chosen = {name: argv for name, argv in commands.items() if (options.only or "") in name}
        if _CAPTION in chosen:
            chosen[_CAPTION] += run_and_photo(Path(scratch), os.environ | places)
        start = partial(run, environment=os.environ | places, folder=scratch)
        if options.imports:
            for name, argv in chosen.items():
                print(f"\n{name}\n{imports_of(argv, os.environ | places, scratch)}")
            return
        rows = []
        for name, argv in chosen.items():
            rows.append(measured(name, argv, start, options))
            print(*as_text(rows[-1]).values(), sep="  ", file=sys.stderr)
    print(markdown([as_text(row) for row in rows]))
    keep(
        options.out,
        {
            "machine": machine(),
            "rounds": options.rounds,
            "clock": "wall" if options.wall else "cpu",
            "commands": rows,
        },
    )


def commands_in(folder: Path) -> dict[str, list[str]]:
    """Return {name: arguments of python}, with captions to score in `folder`."""
    for name, count in (("small", 2), ("large", 5000)):
        write_captions(folder / name, count)
    score = {
        f"score, {count} captions": [
            _CLI,
            "score",
            str(folder / name / "c.json"),
            str(folder / name / "r.json"),
        ]
        for name, count in (("small", "2"), ("large", "5,000"))
    }
    return {
        "--help": [_CLI, "--help"],
        "train --help": [_CLI, "train", "--help"],
        **score,
        _CAPTION: [_CLI, "caption"],
        "train until its first step": [_FIRST_STEP, "train", *_SMALL],
        _PLAN: [_CLI, "train", "-m", *_SMALL, "seed=range(1,1001)", "sweep.dry_run=true"],
    }


def run_and_photo(folder: Path, environment: dict[str, str]) -> list[str]:
    """Train a run, and return its folder and a picture."""
    run([_CLI, "train", *_SMALL], python=sys.executable, environment=environment, folder=str(folder))
    (trained,) = (folder / "outputs" / "runs").iterdir()
    return [str(trained), str(next((trained / "samples" / "images").glob("*.png")))]


def write_captions(folder: Path, count: int) -> None:
    """Write c.json with `count` made-up captions and r.json with five references of each."""
    rng = random.Random(0)
    text: Callable[[], str] = lambda: " ".join(rng.choices(_WORDS, k=10))  # noqa: E731
    folder.mkdir()
    rows = [{"image_id": number, "caption": text()} for number in range(count)]
    (folder / "c.json").write_text(json.dumps(rows), encoding="utf-8")
    references = {str(number): [text() for _ in range(5)] for number in range(count)}
    (folder / "r.json").write_text(json.dumps(references), encoding="utf-8")


def run(argv: list[str], *, python: str, environment: dict[str, str], folder: str) -> None:
    command = [python, "-c", *argv]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv[1:])} failed:\n{done.stderr}")


def imports_of(argv: list[str], environment: dict[str, str], folder: str) -> str:
    """Return the imports that take 20 ms and more, with all that they import, as python -X importtime has them."""
    command = [sys.executable, "-X", "importtime", "-c", *argv]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    rows = [line.removeprefix("import time:").split("|") for line in lines[1:]]
    return "\n".join(f"{int(whole) / 1000:8.0f} ms {name}" for _, whole, name in rows if int(whole) >= 20_000)


def measured(name: str, argv: list[str], start: Callable, options: argparse.Namespace) -> dict:
    pythons = {"now": sys.executable} | ({"before": str(options.before)} if options.before else {})
    ways = {key: partial(start, argv, python=python) for key, python in pythons.items()}
    clock = time.perf_counter if options.wall else cpu_seconds_of_children
    seconds = alternate(ways, rounds=options.rounds, clock=clock)
    found = {"command": name, "seconds": seconds, "aim": _AIMS.get(name)}
    return found | ({"ratio": ratio(seconds, "now", "before")} if options.before else {})


def cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def as_text(row: dict) -> dict[str, str]:
    now = row["seconds"]["now"]
    text = {
        "command": row["command"],
        "seconds (range)": f"{statistics.median(now):.2f} ({min(now):.2f} to {max(now):.2f})",
        "aim": "" if row["aim"] is None else f"{row['aim']:g}",
    }
    if "ratio" in row:
        text["before / now (range)"] = "{median:.2f} ({low:.2f} to {high:.2f})".format(**row["ratio"])
    return text


if __name__ == "__main__":
    main()
