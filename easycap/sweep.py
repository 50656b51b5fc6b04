"""`easycap train -m`: a search space, one run per cell. The same command again finishes what is not finished.

overrides -> plan (sweep_plan.py) -> launcher -> a process per cell -> summary
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from easycap.build import build
from easycap.report.numbers import NOTHING, duration_text, score_text
from easycap.report.reading import read_result
from easycap.report.scores import HEADLINE, main_split, oracle_mark, score_of
from easycap.runs import shown
from easycap.sweep_plan import make_plan, write_plan
from easycap.sweeping.cells import LOG, Cell, Children, Outcome, environment_of, error_of, state_of
from easycap.train import git_commit


def run_sweep(words: Sequence[str]) -> int:
    """Run the sweep that the overrides `words` ask for; return 0, or 1 if a cell failed.

    Raises `ValueError` before the first cell starts if any cell is wrong, and `KeyboardInterrupt` after the summary
    if it was stopped.
    """
    plan = make_plan(words)
    launcher = build("launcher", plan.launcher)
    if plan.dry_run:
        return _show_plan(plan.cells, plan.folder, launcher)
    write_plan(plan, "easycap train -m " + shlex.join(words))
    return _run(plan.cells, plan.folder, launcher)


def _run(cells: Sequence[Cell], folder: Path, launcher: Any) -> int:
    states = {cell: state_of(cell) for cell in cells}
    counts = ", ".join(f"{number} {state}" for state, number in Counter(states.values()).items())
    print(f"{_plural(len(cells), 'cell')} in {shown(folder)}: {counts}", flush=True)
    completed = [cell for cell, state in states.items() if state == "completed"]
    _warn_of_other_code(completed)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    children, stopped = Children(), False
    outcomes = {cell: Outcome("skipped", "completed") for cell in completed}
    try:
        for cell, outcome in launcher([cell for cell in cells if cell not in outcomes], children):
            outcomes[cell] = outcome
            if outcome.did != "skipped":
                print(
                    f"[{len(outcomes):>{len(str(len(cells)))}}/{len(cells)}] {_line(cell, outcome)}",
                    flush=True,
                )
    except KeyboardInterrupt:
        stopped = True
    for cell in cells:
        outcomes.setdefault(cell, Outcome("not trained", state_of(cell), error_of(cell)))
    failed = _summarise(outcomes, folder)
    if stopped:
        raise KeyboardInterrupt
    return 1 if failed else 0


def _warn_of_other_code(completed: Sequence[Cell]) -> None:
    now = git_commit()
    commits = [
        (read_result(cell.folder) or {}).get("environment", {}).get("git_commit") for cell in completed
    ]
    others = sorted({str(commit) for commit in commits if commit != now})
    if others:
        print(
            f"warning: {_plural(sum(commit != now for commit in commits), 'completed cell')} to skip, trained by other "
            f"code (commit {', '.join(others)}; now {now})",
            file=sys.stderr,
        )


def _line(cell: Cell, outcome: Outcome) -> str:
    if outcome.state != "completed":
        return f"{cell.label}  {outcome.state}: {outcome.error or 'stopped'}"
    by = " by another sweep" if outcome.did == "waited" else " (gone on with)" * (outcome.did == "resumed")
    return f"{cell.label}  {HEADLINE} {_score(cell)}  {duration_text(outcome.seconds)}{by}"


def _score(cell: Cell) -> str:
    result = read_result(cell.folder) or {}
    score = score_of(result, main_split(result), HEADLINE)
    return score_text(score["value"]) + oracle_mark(score) if score else NOTHING


def _summarise(outcomes: Mapping[Cell, Outcome], folder: Path) -> int:
    """Print what became of the sweep; return how many cells failed."""
    completed = [o for o in outcomes.values() if o.state == "completed"]
    did = Counter(outcome.did for outcome in completed)
    names = {
        "trained": "trained",
        "resumed": "gone on with",
        "skipped": "skipped",
        "waited": "by another sweep",
    }
    parts = [f"{did[key]} {name}" for key, name in names.items() if did[key]]
    detail = f" ({', '.join(parts)})" if parts else ""
    print(f"\n{len(completed)} of {_plural(len(outcomes), 'cell')} completed{detail}")
    failed = 0
    for cell, outcome in outcomes.items():
        if outcome.state == "failed":
            failed += 1
            print(
                f"failed       {cell.label}\n             {outcome.error}\n             {shown(cell.folder / LOG)}"
            )
        elif outcome.state != "completed":
            print(f"{outcome.state:<12} {cell.label}")
    if len(completed) < len(outcomes):
        print(
            "The same command again skips what is completed, goes on with what was stopped, tries again what failed."
        )
    if completed:
        print(f"compare: easycap compare {shown(folder)}")
    if any(folder.glob("*/wandb/offline-run-*")):
        print(f"W&B is offline; to upload the sweep: wandb sync {shown(folder)}/*/wandb/offline-run-*")
    return failed


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


# ---------------------------------------------------------------------------------------------- dry run


def _show_plan(cells: Sequence[Cell], folder: Path, launcher: Any) -> int:
    """List the cells, with the time each that is to be trained would take by some timed steps."""
    jobs, threads = getattr(launcher, "jobs", 1), getattr(launcher, "threads", None)
    width = max(len(cell.label) for cell in cells)
    seconds, problems = [], []
    for cell in cells:
        state = state_of(cell)
        line = f"{cell.label:<{width}}  {state:<11}"
        if state == "completed":
            print(line, flush=True)
            continue
        timed = _timed(cell, threads)
        if isinstance(timed, str):
            problems.append(f"{cell.label}: {timed}")
            print(f"{line}  cannot start", flush=True)
            continue
        seconds.append(timed["seconds"])
        step = f"{1000 * timed['step_seconds']:,.0f} ms a step"
        print(f"{line}  {step:>16}  about {duration_text(timed['seconds'])}", flush=True)
    total = max([sum(seconds) / jobs, *seconds, 0.0])
    at_once = f", {jobs} at a time" if jobs > 1 else ""
    print(f"\n{_plural(len(cells), 'cell')} in {shown(folder)}, about {duration_text(total)} in all{at_once}")
    print(
        "Estimated from 5 timed steps and one decoded batch of each, one cell at a time, without start-up and\n"
        "reading of data; a cell that goes on needs less."
    )
    for problem in problems:
        print(f"cannot start: {problem}")
    return 1 if problems else 0


def _timed(cell: Cell, threads: int | None) -> dict[str, float] | str:
    command = [sys.executable, "-m", "easycap.estimate", *cell.overrides]
    done = subprocess.run(command, capture_output=True, text=True, env=environment_of(threads))
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
    return json.loads(done.stdout.splitlines()[-1])
