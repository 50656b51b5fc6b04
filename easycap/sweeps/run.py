"""`easycap train -m`: a search space, one run per combination. The same command again completes the remaining runs.

overrides -> plan (plan.py) -> launcher -> a process per run -> summary
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from easycap.config.instantiate import build
from easycap.errors import UserError
from easycap.report.scores import headline, main_split, oracle_mark, score_of
from easycap.runs.environment import git_commit
from easycap.runs.find import shown
from easycap.runs.reading import read_result
from easycap.sweeps.estimate import Estimator
from easycap.sweeps.plan import Plan, make_plan, read_request, write_plan
from easycap.sweeps.planned_run import LOG, Children, Outcome, PlannedRun, error_of, state_of
from easycap.utils.processes import end_as_on_interrupt
from easycap.utils.shell import joined
from easycap.utils.text import NOTHING, duration_text, score_text


def run_sweep(words: Sequence[str], flags: Sequence[str] = ()) -> int:
    """Run the sweep that the overrides `words` request; return 0, or 1 if a run is not completed. `flags` are those of
    the command, to be recorded with it.

    Raises `UserError` before the first run starts if any run is wrong, and `KeyboardInterrupt` after the summary
    if it was stopped.
    """
    request = read_request(words)
    launcher = build("launcher", request.launcher)
    command = "easycap train -m " + joined([*flags, *words])
    if request.settings["search"] == "optuna":
        from easycap.sweeps.search import run_search  # Optuna is an extra

        return run_search(request, launcher, command)
    plan = make_plan(request)
    if plan.dry_run:
        return _show_plan(plan, launcher)
    write_plan(plan, command)
    return _run(plan.runs, plan.folder, launcher)


def _run(runs: Sequence[PlannedRun], folder: Path, launcher: Any) -> int:
    states = {run: state_of(run) for run in runs}
    counts = ", ".join(f"{number} {state}" for state, number in Counter(states.values()).items())
    print(f"{_plural(len(runs), 'run')} in {shown(folder)}: {counts}", flush=True)
    completed = [run for run, state in states.items() if state == "completed"]
    _warn_of_other_code(completed)
    end_as_on_interrupt()
    children, stopped = Children(), False
    outcomes = {run: Outcome("skipped", "completed") for run in completed}
    try:
        for run, outcome in launcher([run for run in runs if run not in outcomes], children):
            outcomes[run] = outcome
            if outcome.did != "skipped":
                print(
                    f"[{len(outcomes):>{len(str(len(runs)))}}/{len(runs)}] {_line(run, outcome)}",
                    flush=True,
                )
    except KeyboardInterrupt:
        stopped = True
    for run in runs:
        outcomes.setdefault(run, Outcome("not trained", state_of(run), error_of(run)))
    _summarise(outcomes, folder)
    if stopped:
        raise KeyboardInterrupt
    return 0 if all(outcome.state == "completed" for outcome in outcomes.values()) else 1


def _warn_of_other_code(completed: Sequence[PlannedRun]) -> None:
    now = git_commit()
    commits = [(read_result(run.folder) or {}).get("environment", {}).get("git_commit") for run in completed]
    others = sorted({str(commit) for commit in commits if commit != now})
    if others:
        print(
            f"warning: skipping {_plural(sum(commit != now for commit in commits), 'completed run')}, trained by other "
            f"code (commit {', '.join(others)}; now {now})",
            file=sys.stderr,
        )


def _line(run: PlannedRun, outcome: Outcome) -> str:
    if outcome.state != "completed":
        return f"{run.label}  {outcome.state}: {outcome.error or 'stopped'}"
    by = " by another sweep" if outcome.did == "waited" else " (resumed)" * (outcome.did == "resumed")
    return f"{run.label}  {_score(run)}  {duration_text(outcome.seconds)}{by}"


def _score(run: PlannedRun) -> str:
    result = read_result(run.folder) or {}
    metric = headline(result)
    score = score_of(result, main_split(result), metric)
    return f"{metric} {score_text(score['value']) + oracle_mark(score) if score else NOTHING}"


def _summarise(outcomes: Mapping[PlannedRun, Outcome], folder: Path) -> None:
    """Print what became of the sweep."""
    completed = [o for o in outcomes.values() if o.state == "completed"]
    did = Counter(outcome.did for outcome in completed)
    names = {
        "trained": "trained",
        "resumed": "resumed",
        "skipped": "skipped",
        "waited": "by another sweep",
    }
    parts = [f"{did[key]} {name}" for key, name in names.items() if did[key]]
    detail = f" ({', '.join(parts)})" if parts else ""
    print(f"\n{len(completed)} of {_plural(len(outcomes), 'run')} completed{detail}")
    for run, outcome in outcomes.items():
        if outcome.state == "failed":
            print(
                f"failed       {run.label}\n             {outcome.error}\n             {shown(run.folder / LOG)}"
            )
        elif outcome.state != "completed":
            print(f"{outcome.state:<12} {run.label}" + (f": {outcome.error}" if outcome.error else ""))
    if len(completed) < len(outcomes):
        print(
            "The same command again skips completed runs, resumes interrupted ones and retries failed ones."
        )
    if completed:
        print(f"compare: easycap compare {shown(folder)}")
    if any(folder.glob("*/wandb/offline-run-*")):
        print(f"W&B is offline; to upload the sweep: wandb sync {shown(folder)}/*/wandb/offline-run-*")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


# ---------------------------------------------------------------------------------------------- dry run


def _show_plan(plan: Plan, launcher: Any) -> int:
    """List the runs, with the time each that is to be trained would take by some timed steps."""
    jobs, threads = getattr(launcher, "jobs", 1), getattr(launcher, "threads", None)
    if threads is not None and "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # as a run's process has it
        torch.set_num_threads(threads)
    runs, estimator = plan.runs, Estimator(more_runs=len(plan.runs) > 1)
    width = max(len(run.label) for run in runs)
    seconds, problems = [], []
    for run, settings in zip(runs, plan.settings, strict=True):
        state = state_of(run)
        line = f"{run.label:<{width}}  {state:<11}"
        if state == "completed":
            print(line, flush=True)
            continue
        try:
            timed = estimator(settings)
        except Exception as error:  # one run's fault must not hide the others' times
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            problems.append(f"{run.label}: {kind}{error}")
            print(f"{line}  cannot start", flush=True)
            continue
        seconds.append(timed["seconds"])
        step = f"{1000 * timed['step_seconds']:,.0f} ms a step"
        print(f"{line}  {step:>16}  about {duration_text(timed['seconds'])}", flush=True)
    total = max([sum(seconds) / jobs, *seconds, 0.0])
    at_once = f", {jobs} at a time" if jobs > 1 else ""
    print(
        f"\n{_plural(len(runs), 'run')} in {shown(plan.folder)}, about {duration_text(total)} in all{at_once}"
    )
    print(
        "Estimated on this machine from up to 5 timed steps and one decoded batch per distinct model, start-up\n"
        "included; resumed runs take less."
    )
    for problem in problems:
        print(f"cannot start: {problem}")
    return 1 if problems else 0
