"""`easycap train -m`: a search space, one run per cell. The same command again finishes what is not finished.

overrides -> cells, every one composed and checked -> launcher -> a process per cell -> summary
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from easycap.build import build
from easycap.config import check_group, config_hash, options
from easycap.launch import check_all, compose, options_of, parse
from easycap.paths import config_dir, outputs_dir
from easycap.processes import lock
from easycap.registry import describe_choices
from easycap.report.numbers import NOTHING, duration_text, score_text
from easycap.report.reading import read_result
from easycap.report.scores import HEADLINE, main_split, score_of
from easycap.runs import shown
from easycap.sweeping.cells import LOG, Cell, Children, Outcome, environment_of, error_of, state_of
from easycap.sweeping.space import Axes, axes_of, combinations, products
from easycap.tracking.run_folder import write_json
from easycap.train import git_commit

_REFUSED = {
    "hydra/launcher": "launcher=parallel (launcher.jobs=4 for four at a time) or launcher=slurm",
    "hydra/sweeper": "sweep=NAME, or keys with several values",
    "hydra.sweep.subdir": "hydra.sweep.dir=FOLDER for the sweep; cells name themselves",
    "hydra.run.dir": "hydra.sweep.dir=FOLDER",
    "resume": "the same command again, which goes on with what is not finished",
}
# What does not change what is computed does not change the sweep's folder either.
_NOT_IN_NAME = ("device", "tracking", "launcher", "sweep", "hydra", "trainer.workers")


@dataclass(frozen=True)
class Sweep:
    """The fields of conf/sweep/*.yaml: `axes` as sweeping/space.py reads them, the `name` of the sweep's folder, and
    whether only to list the cells."""

    axes: Any
    name: str | None
    dry_run: bool


def run_sweep(words: Sequence[str]) -> int:
    """Run the sweep that the overrides `words` ask for; return 0, or 1 if a cell failed.

    Raises `ValueError` before the first cell starts if any cell is wrong, and `KeyboardInterrupt` after the summary
    if it was stopped.
    """
    overrides = parse(words)
    _refuse(overrides)
    sweep, option = _sweep_of(overrides)
    launcher = build("launcher", _launcher_of(overrides))
    folder, products_ = _plan(overrides, sweep, option)
    cells = _cells(overrides, products_, folder)
    if sweep.dry_run:
        return _show_plan(cells, folder, launcher)
    _write_plan(folder, cells, products_, "easycap train -m " + shlex.join(words))
    return _run(cells, folder, launcher)


# ---------------------------------------------------------------------------------------------- planning


def _refuse(overrides: Sequence[Override]) -> None:
    for override in overrides:
        key = override.key_or_group
        if key in _REFUSED:
            raise ValueError(f"{key} has no meaning in a sweep; use {_REFUSED[key]}")


def _sweep_of(overrides: Sequence[Override]) -> tuple[Sweep, str | None]:
    """The sweep's settings, and which option of conf/sweep was chosen."""
    values, option = _group("sweep", overrides, default="none")
    known = [field.name for field in fields(Sweep)]
    for key in values:
        if key not in known:
            raise ValueError(f"sweep.{key} does not exist; {describe_choices(str(key), known)}")
    # What a YAML leaves out is as in none.yaml.
    given = {**OmegaConf.load(config_dir() / "sweep" / "none.yaml"), **values}
    axes = given.pop("axes")
    axes = OmegaConf.to_container(axes) if OmegaConf.is_config(axes) else axes
    name, dry_run = given["name"], given["dry_run"]
    if not isinstance(dry_run, bool):
        raise ValueError(f"sweep.dry_run={dry_run} must be true or false")
    return Sweep(axes, None if name is None else str(name), dry_run), option if option != "none" else None


def _launcher_of(overrides: Sequence[Override]) -> dict[str, Any]:
    values, _ = _group("launcher", overrides, default="local")
    return check_group("launcher", values)


def _group(group: str, overrides: Sequence[Override], *, default: str) -> tuple[Any, str]:
    """The YAML of the option that the overrides choose in `group`, with the fields they set."""
    option, given = default, {}
    for override in overrides:
        key = override.key_or_group
        if override.is_sweep_override() and key.partition(".")[0] == group:
            raise ValueError(f"{override.input_line}: {group} holds for the whole sweep and takes one value")
        if key == group:
            option = override.value()
        elif key.startswith(f"{group}."):
            given[key.removeprefix(f"{group}.")] = override.value()
    if option not in options(group):
        raise ValueError(f"{group}={option} does not exist; {describe_choices(str(option), options(group))}")
    values = OmegaConf.load(config_dir() / group / f"{option}.yaml")
    for key, value in given.items():
        OmegaConf.update(values, key, value, force_add=True)
    return values, option


def _plan(overrides: Sequence[Override], sweep: Sweep, option: str | None) -> tuple[Path, list[Axes]]:
    """The sweep's folder, and the products of axes it runs."""
    folder, cell_overrides = None, []
    for override in overrides:
        if override.key_or_group == "hydra.sweep.dir":
            folder = Path(override.value()).expanduser().absolute()
        elif override.key_or_group.partition(".")[0] not in ("sweep", "launcher"):
            cell_overrides.append(override)
    asked = axes_of(cell_overrides, options_of)
    fixed = [o for o in cell_overrides if not o.is_sweep_override()]
    products_ = products(sweep.axes, asked, [o.key_or_group for o in fixed])
    name = sweep.name or _name(option, products_, fixed)
    if not re.fullmatch(r"[\w.+-]+", name) or name.startswith("."):
        raise ValueError(f"sweep.name={name!r} names a folder: use letters, digits, '-', '_', '+' and '.'")
    return folder or outputs_dir() / "sweeps" / name, products_


def _name(option: str | None, products_: list[Axes], fixed: Sequence[Override]) -> str:
    """The option's name or the axes' keys, and a hash of what else was asked for."""
    keys = sorted({key for product in products_ for key in product})
    lines = sorted(o.input_line for o in fixed if not o.key_or_group.startswith(_NOT_IN_NAME))
    if option is not None and not lines:
        return option
    digest = hashlib.sha256(json.dumps([[] if option else keys, lines]).encode()).hexdigest()[:6]
    plain = option or "+".join(key.rpartition(".")[2] for key in keys)[:50] or "one"
    return f"{plain}-{digest}"


def _cells(overrides: Sequence[Override], products_: list[Axes], folder: Path) -> list[Cell]:
    """Every cell, composed and checked; `ValueError` names the first that is wrong."""
    varying = {key for product in products_ for key in product}
    fixed = [
        o.input_line
        for o in overrides
        if o.key_or_group not in varying and o.key_or_group.partition(".")[0] not in ("sweep", "launcher")
        if o.key_or_group != "hydra.sweep.dir"
    ]
    values = {key: [value for product in products_ for value in product.get(key, [])] for key in varying}
    for key, before in _read_plan(folder).get("axes", {}).items():
        values.setdefault(key, [o.get_value_string() for o in overrides if o.key_or_group == key]).extend(
            before
        )
    cells: dict[str, Cell] = {}
    combinations_ = dict.fromkeys(
        tuple(one.items()) for product in products_ for one in combinations(product)
    )
    for combination in combinations_:
        words = (*fixed, *(f"{key}={value}" for key, value in combination))
        # A key with one value, such as a size that goes with one decoder, tells no cells apart.
        telling = [(key, value) for key, value in map(_split, words) if len(set(values.get(key, ()))) > 1]
        label = " ".join(f"{key}={value}" for key, value in telling) or "(no axes)"
        try:
            settings = check_all(compose(words)[0])
            digest = config_hash(settings)
            if digest in cells:
                raise ValueError(
                    f"it would train the same as the cell {cells[digest].label}: they differ in nothing but where and "
                    "how fast"
                )
            path = _folder_of(folder, telling, settings["seed"], digest)
            _check_same_data(path, settings)
        except ValueError as error:
            raise ValueError(f"cell {label}: {error}") from None
        varied = tuple(f"{key}={value}" for key, value in telling)
        cells[digest] = Cell(path, (*words, *_tracked(settings, folder)), varied)
    return list(cells.values())


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+").partition("=")
    return key, value


def _check_same_data(cell: Path, settings: Mapping[str, Any]) -> None:
    """A hash leaves out where data lies, so that it may move; but a cell of other data must not pass for this one."""
    root = settings["data"].get("root")
    if root is None or not (cell / "config.yaml").is_file():
        return
    before = OmegaConf.load(cell / "config.yaml").data.get("root")
    if Path(str(before)).absolute() != Path(str(root)).absolute() and Path(str(before)).exists():
        raise ValueError(f"{shown(cell)} was trained on data.root={before}; choose another sweep.name")


def _folder_of(sweep: Path, telling: Sequence[tuple[str, str]], seed: int, digest: str) -> Path:
    """The cell's folder: the one it has already, whatever axes there were then, or a new name."""
    for found in sweep.glob(f"*-{digest}"):
        return found
    words = [
        value if key in _groups() else f"{key.rpartition('.')[2]}{value}"
        for key, value in telling
        if key != "seed"
    ]
    plain = re.sub(r"[^\w.+-]+", "_", "-".join(words))[:80].strip("-_.")
    return sweep / "-".join([*filter(None, [plain]), f"s{seed}", digest])


def _groups() -> set[str]:
    """The config groups: their options are words that need no key beside them."""
    return {path.name for path in config_dir().iterdir() if path.is_dir()}


def _tracked(settings: Mapping[str, Any], folder: Path) -> list[str]:
    tracking = settings["tracking"]
    return [f"tracking.group='{folder.name}'"] if tracking.get("group", "") is None else []


def _write_plan(folder: Path, cells: Sequence[Cell], products_: list[Axes], command: str) -> None:
    """Write sweep.json: commands, axes and cells, with those of earlier commands in the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sweep.json"
    with lock(folder / ".locks" / "sweep"):
        before = _read_plan(folder)
        commands = list(dict.fromkeys([*before.get("commands", []), command]))
        known = {cell["folder"]: cell for cell in before.get("cells", [])}
        known |= {c.folder.name: {"folder": c.folder.name, "overrides": list(c.varied)} for c in cells}
        axes: Axes = before.get("axes", {})
        for product in products_:
            for key, values in product.items():
                axes[key] = list(dict.fromkeys([*axes.get(key, []), *values]))
        plan = {"name": folder.name, "commands": commands, "axes": axes, "cells": list(known.values())}
        write_json(path, plan)


def _read_plan(folder: Path) -> dict[str, Any]:
    path = folder / "sweep.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


# ----------------------------------------------------------------------------------------------- running


def _run(cells: Sequence[Cell], folder: Path, launcher: Any) -> int:
    states = Counter(state_of(cell) for cell in cells)
    counts = ", ".join(f"{number} {state}" for state, number in states.items())
    print(f"{_plural(len(cells), 'cell')} in {shown(folder)}: {counts}", flush=True)
    completed = [cell for cell in cells if state_of(cell) == "completed"]
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
    return score_text(score["value"]) if score else NOTHING


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
