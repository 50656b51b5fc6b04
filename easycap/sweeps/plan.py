"""Which runs a sweep has: from the words of the command line to a folder and runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from easycap.config.compose import import_own_modules
from easycap.config.options import options
from easycap.config.overrides import parse
from easycap.config.schema import check_group
from easycap.errors import UserError
from easycap.registry import describe_choices
from easycap.runs.find import SWEEP
from easycap.runs.reading import planned_runs
from easycap.sweeps.plan_runs import line_of, planned_runs_of, read_plan
from easycap.sweeps.planned_run import PlannedRun
from easycap.sweeps.space import Axes, axes_of, products
from easycap.utils.files import write_json
from easycap.utils.paths import config_files, expanded, outputs_dir
from easycap.utils.processes import lock

_REFUSED = {
    "hydra/launcher": "launcher=parallel (launcher.jobs=4 for four at a time) or launcher=slurm",
    "hydra/sweeper": "sweep=NAME, or keys with several values",
    "hydra.sweep.subdir": "hydra.sweep.dir=FOLDER for the sweep; runs name themselves",
    "hydra.run.dir": "hydra.sweep.dir=FOLDER",
    "resume": "the same command again, which resumes unfinished runs",
}
SEARCHES = ("grid", "optuna")
# Settings that do not change results do not change the name of the sweep's folder either.
_NOT_IN_NAME = ("device", "tracking", "launcher", "sweep", "hydra", "trainer.workers")
_SETTINGS = ("axes", "name", "dry_run", "search", "trials", "prune")  # of conf/sweep/*.yaml


@dataclass(frozen=True)
class Plan:
    """A sweep: its folder, and the products of axes whose union it runs.

    `runs` come with the checked config of each in `settings`; `launcher` has the checked settings of the launcher;
    with `dry_run` the runs are only listed.
    """

    folder: Path
    spaces: list[Axes]
    runs: list[PlannedRun]
    settings: list[dict[str, Any]]
    launcher: dict[str, Any]
    dry_run: bool


@dataclass(frozen=True)
class Request:
    """What the words of a sweep ask for: checked settings of `sweep` and `launcher`, the option of `sweep`, overrides
    that are the same for all runs, overrides that vary, and the folder if it is named.
    """

    settings: dict[str, Any]
    option: str | None
    launcher: dict[str, Any]
    fixed: list[Override]
    varied: list[Override]
    folder: Path | None

    def folder_for(self, spaces: list[Axes], lines: Sequence[Override]) -> Path:
        """Return the sweep's folder; its name is derived from the axes and from `lines` unless it has one."""
        return self.folder or outputs_dir() / "sweeps" / (
            self.settings["name"] or _name(self.option, spaces, lines)
        )


def read_request(words: Sequence[str]) -> Request:
    """Return what the overrides `words` ask for; `UserError` names what a sweep cannot do."""
    overrides = parse(words, sweep=True)
    for override in overrides:
        if (key := override.key_or_group) in _REFUSED:
            raise UserError(f"{key} has no meaning in a sweep; use {_REFUSED[key]}")
    import_own_modules(overrides)
    settings, option = _settings(overrides)
    launcher = check_group("launcher", _group("launcher", overrides, default="local")[0])
    own = [o for o in overrides if o.key_or_group.partition(".")[0] in ("sweep", "launcher")]
    folder = [o for o in overrides if o.key_or_group == "hydra.sweep.dir"]
    ours = [o for o in overrides if o not in own and o not in folder]
    return Request(
        settings,
        option,
        launcher,
        fixed=[o for o in ours if not o.is_sweep_override()],
        varied=[o for o in ours if o.is_sweep_override()],
        folder=expanded(str(folder[-1].value())).absolute() if folder else None,
    )


def make_plan(request: Request) -> Plan:
    """Return the requested sweep; `UserError` if anything about any of its runs is wrong."""
    settings, fixed = request.settings, request.fixed
    spaces = products(settings["axes"], axes_of(request.varied, options), [o.key_or_group for o in fixed])
    path = request.folder_for(spaces, fixed)
    runs = planned_runs_of(fixed, spaces, path)
    return Plan(path, spaces, list(runs), list(runs.values()), request.launcher, settings["dry_run"])


def write_plan(plan: Plan, command: str) -> None:
    """Write sweep.json: commands, axes and runs, with those of earlier commands in the same folder."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    with lock(plan.folder / ".locks" / "sweep"):
        before = read_plan(plan.folder)
        commands = list(dict.fromkeys([*before.get("commands", []), command]))
        runs = {run["folder"]: run for run in planned_runs(before)} if before else {}
        runs |= {c.folder.name: {"folder": c.folder.name, "overrides": list(c.varied)} for c in plan.runs}
        axes: Axes = before.get("axes", {})
        for space in plan.spaces:
            for key, values in space.items():
                axes[key] = list(dict.fromkeys([*axes.get(key, []), *values]))
        known = {"name": plan.folder.name, "commands": commands, "axes": axes, "runs": list(runs.values())}
        write_json(plan.folder / SWEEP, known)


# ---------------------------------------------------------------------------------------------- settings


def _settings(overrides: Sequence[Override]) -> tuple[dict[str, Any], str | None]:
    """The fields of conf/sweep/*.yaml, and which option was chosen; what a YAML leaves out is as in none.yaml."""
    values, option = _group("sweep", overrides, default="none")
    for key in values:
        if key not in _SETTINGS:
            raise UserError(f"sweep.{key} does not exist; {describe_choices(str(key), _SETTINGS)}")
    found = {**OmegaConf.load(config_files("sweep")["none"]), **values}
    if OmegaConf.is_config(found["axes"]):
        found["axes"] = OmegaConf.to_container(found["axes"])
    for key in ("dry_run", "prune"):
        if not isinstance(found[key], bool):
            raise UserError(f"sweep.{key}={found[key]} must be true or false")
    if found["search"] not in SEARCHES:
        raise UserError(
            f"sweep.search={found['search']} does not exist; {describe_choices(str(found['search']), SEARCHES)}"
        )
    if not isinstance(found["trials"], int) or found["trials"] < 1:
        raise UserError(f"sweep.trials={found['trials']} must be a whole number, at least 1")
    name = found["name"]
    if name is not None and not re.fullmatch(r"[\w+-][\w.+-]*", str(name)):
        raise UserError(f"sweep.name={name!r} names a folder: use letters, digits, '-', '_', '+' and '.'")
    found["name"] = None if name is None else str(name)
    return found, option if option != "none" else None


def _group(group: str, overrides: Sequence[Override], *, default: str) -> tuple[Any, str]:
    """The YAML of the option that the overrides choose in `group`, with the fields they set."""
    option, given = default, {}
    for override in overrides:
        key = override.key_or_group
        if override.is_sweep_override() and key.partition(".")[0] == group:
            raise UserError(f"{override.input_line}: {group} applies to the whole sweep and takes one value")
        if key == group:
            option = str(override.value())
        elif key.startswith(f"{group}."):
            given[key.removeprefix(f"{group}.")] = override.value()
    files = config_files(group)
    if option not in files:
        raise UserError(f"{group}={option} does not exist; {describe_choices(str(option), files)}")
    values = OmegaConf.load(files[option])
    for key, value in given.items():
        OmegaConf.update(values, key, value, force_add=True)
    return values, option


def _name(option: str | None, spaces: list[Axes], fixed: Sequence[Override]) -> str:
    """The option's name or the axes' keys, and a hash of what else was asked for."""
    keys = sorted({key for space in spaces for key in space})
    lines = sorted(line_of(o) for o in fixed if not o.key_or_group.startswith(_NOT_IN_NAME))
    if option is not None and not lines:
        return option
    digest = hashlib.sha256(json.dumps([[] if option else keys, lines]).encode()).hexdigest()[:6]
    plain = option or "+".join(key.rpartition(".")[2] for key in keys)[:50] or "one"
    return f"{plain}-{digest}"
