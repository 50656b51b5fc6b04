"""Which cells a sweep has: from the words of the command line to a folder and cells, every one composed and checked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from easycap.config import check_group, config_hash, options
from easycap.launch import check_all, compose, options_of, parse
from easycap.paths import config_dir, outputs_dir
from easycap.processes import lock
from easycap.registry import describe_choices
from easycap.runs import shown
from easycap.sweeping.cells import Cell
from easycap.sweeping.space import Axes, axes_of, combinations, products
from easycap.tracking.run_folder import write_json

_REFUSED = {
    "hydra/launcher": "launcher=parallel (launcher.jobs=4 for four at a time) or launcher=slurm",
    "hydra/sweeper": "sweep=NAME, or keys with several values",
    "hydra.sweep.subdir": "hydra.sweep.dir=FOLDER for the sweep; cells name themselves",
    "hydra.run.dir": "hydra.sweep.dir=FOLDER",
    "resume": "the same command again, which goes on with what is not finished",
}
# What does not change what is computed does not change the sweep's folder either.
_NOT_IN_NAME = ("device", "tracking", "launcher", "sweep", "hydra", "trainer.workers")
_SETTINGS = ("axes", "name", "dry_run")  # of conf/sweep/*.yaml


@dataclass(frozen=True)
class Plan:
    """A sweep's folder, the products of axes whose union it runs, its cells, the checked settings of its launcher, and
    whether only to list the cells."""

    folder: Path
    spaces: list[Axes]
    cells: list[Cell]
    launcher: dict[str, Any]
    dry_run: bool


def make_plan(words: Sequence[str]) -> Plan:
    """Return the sweep that the overrides `words` ask for; `ValueError` if anything about any of its cells is wrong."""
    overrides = parse(words)
    for override in overrides:
        if (key := override.key_or_group) in _REFUSED:
            raise ValueError(f"{key} has no meaning in a sweep; use {_REFUSED[key]}")
    settings, option = _settings(overrides)
    launcher = check_group("launcher", _group("launcher", overrides, default="local")[0])
    own = [o for o in overrides if o.key_or_group.partition(".")[0] in ("sweep", "launcher")]
    folder = [o for o in overrides if o.key_or_group == "hydra.sweep.dir"]
    ours = [o for o in overrides if o not in own and o not in folder]
    fixed = [o for o in ours if not o.is_sweep_override()]
    spaces = products(settings["axes"], axes_of(ours, options_of), [o.key_or_group for o in fixed])
    path = outputs_dir() / "sweeps" / (settings["name"] or _name(option, spaces, fixed))
    if folder:
        path = Path(folder[-1].value()).expanduser().absolute()
    return Plan(path, spaces, _cells(fixed, spaces, path), launcher, settings["dry_run"])


def write_plan(plan: Plan, command: str) -> None:
    """Write sweep.json: commands, axes and cells, with those of earlier commands in the same folder."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    with lock(plan.folder / ".locks" / "sweep"):
        before = _read_plan(plan.folder)
        commands = list(dict.fromkeys([*before.get("commands", []), command]))
        cells = {cell["folder"]: cell for cell in before.get("cells", [])}
        cells |= {c.folder.name: {"folder": c.folder.name, "overrides": list(c.varied)} for c in plan.cells}
        axes: Axes = before.get("axes", {})
        for space in plan.spaces:
            for key, values in space.items():
                axes[key] = list(dict.fromkeys([*axes.get(key, []), *values]))
        known = {"name": plan.folder.name, "commands": commands, "axes": axes, "cells": list(cells.values())}
        write_json(plan.folder / "sweep.json", known)


def _read_plan(folder: Path) -> dict[str, Any]:
    path = folder / "sweep.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


# ---------------------------------------------------------------------------------------------- settings


def _settings(overrides: Sequence[Override]) -> tuple[dict[str, Any], str | None]:
    """The fields of conf/sweep/*.yaml, and which option was chosen; what a YAML leaves out is as in none.yaml."""
    values, option = _group("sweep", overrides, default="none")
    for key in values:
        if key not in _SETTINGS:
            raise ValueError(f"sweep.{key} does not exist; {describe_choices(str(key), _SETTINGS)}")
    found = {**OmegaConf.load(config_dir() / "sweep" / "none.yaml"), **values}
    if OmegaConf.is_config(found["axes"]):
        found["axes"] = OmegaConf.to_container(found["axes"])
    if not isinstance(found["dry_run"], bool):
        raise ValueError(f"sweep.dry_run={found['dry_run']} must be true or false")
    name = found["name"]
    if name is not None and not re.fullmatch(r"[\w+-][\w.+-]*", str(name)):
        raise ValueError(f"sweep.name={name!r} names a folder: use letters, digits, '-', '_', '+' and '.'")
    found["name"] = None if name is None else str(name)
    return found, option if option != "none" else None


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


def _name(option: str | None, spaces: list[Axes], fixed: Sequence[Override]) -> str:
    """The option's name or the axes' keys, and a hash of what else was asked for."""
    keys = sorted({key for space in spaces for key in space})
    lines = sorted(o.input_line for o in fixed if not o.key_or_group.startswith(_NOT_IN_NAME))
    if option is not None and not lines:
        return option
    digest = hashlib.sha256(json.dumps([[] if option else keys, lines]).encode()).hexdigest()[:6]
    plain = option or "+".join(key.rpartition(".")[2] for key in keys)[:50] or "one"
    return f"{plain}-{digest}"


# ------------------------------------------------------------------------------------------------- cells


def _cells(fixed: Sequence[Override], spaces: list[Axes], folder: Path) -> list[Cell]:
    """Every cell, composed and checked; `ValueError` names the first that is wrong."""
    varying = {key for space in spaces for key in space}
    common = [o.input_line for o in fixed if o.key_or_group not in varying]
    telling = _telling(fixed, spaces, _read_plan(folder).get("axes", {}))
    cells: dict[str, Cell] = {}
    for combination in dict.fromkeys(tuple(one.items()) for space in spaces for one in combinations(space)):
        words = (*common, *(f"{key}={value}" for key, value in combination))
        told = [(key, value) for key, value in map(_split, words) if key in telling]
        varied = tuple(f"{key}={value}" for key, value in told)
        try:
            settings = check_all(compose(words)[0])
            digest = config_hash(settings)
            if digest in cells:
                raise ValueError(
                    f"it would train the same as the cell {cells[digest].label}: they differ in nothing but where and "
                    "how fast"
                )
            path = _folder_of(folder, told, settings["seed"], digest)
            _check_same_data(path, settings)
        except ValueError as error:
            raise ValueError(f"cell {' '.join(varied) or '(no axes)'}: {error}") from None
        cells[digest] = Cell(path, (*words, *_tracked(settings, folder)), varied)
    return list(cells.values())


def _telling(fixed: Sequence[Override], spaces: list[Axes], before: Axes) -> set[str]:
    """The keys that tell this folder's cells apart: one value, such as a size that goes with one decoder, does not."""
    values: dict[str, set[str]] = {}
    of_fixed = {o.key_or_group: [o.get_value_string()] for o in fixed if o.key_or_group in before}
    for axes in (*spaces, of_fixed, before):
        for key, found in axes.items():
            values.setdefault(key, set()).update(found)
    return {key for key, found in values.items() if len(found) > 1}


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


def _folder_of(sweep: Path, told: Sequence[tuple[str, str]], seed: int, digest: str) -> Path:
    """The cell's folder: the one it has already, whatever axes there were then, or a new name."""
    for found in sweep.glob(f"*-{digest}"):
        return found
    words = [
        value if key in _groups() else f"{key.rpartition('.')[2]}{value}"
        for key, value in told
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
