"""The runs of a sweep: one per combination, each composed and checked, with its folder."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from easycap.config.compose import Composer
from easycap.config.data_locations import LOCATIONS
from easycap.config.overrides import quoted
from easycap.config.schema import config_hash
from easycap.config.validate import validate
from easycap.errors import UserError
from easycap.registry import own_components
from easycap.runs.find import SWEEP, shown
from easycap.sweeps.planned_run import PlannedRun
from easycap.sweeps.space import Axes, combinations
from easycap.tasks.dry_run import DryRuns
from easycap.utils.paths import config_dir, own_config_dirs
from easycap.utils.progress_bar import Progress


def planned_runs_of(
    fixed: Sequence[Override], spaces: list[Axes], folder: Path, *, telling: Collection[str] | None = None
) -> dict[PlannedRun, dict[str, Any]]:
    """Return every run with its checked config; `UserError` names the first that is wrong.

    The keys of `telling` name the runs; None: those that have several values and, where these do not suffice, those
    that not every product has.
    """
    varying = {key for space in spaces for key in space}
    common = [line_of(o) for o in fixed if o.key_or_group not in varying]
    asked = list(dict.fromkeys(tuple(one.items()) for space in spaces for one in combinations(space)))
    if telling is None:
        telling = _telling(fixed, spaces, read_plan(folder).get("axes", {}))
        if len({tuple(item for item in one if item[0] in telling) for one in asked}) < len(asked):
            telling |= {key for key in varying if any(key not in space for space in spaces)}
    compose, dry_run, folders = Composer(common), DryRuns(), _Folders(folder)
    runs: dict[str, PlannedRun] = {}
    checked: dict[PlannedRun, dict[str, Any]] = {}
    with Progress("planning", len(asked), unit="runs") as progress:
        for combination in asked:
            words = [f"{key}={value}" for key, value in combination]
            named = [(key, value) for key, value in map(_split, (*common, *words)) if key in telling]
            varied = tuple(f"{key}={value}" for key, value in named)
            try:
                settings = validate(compose(words))
                dry_run(settings)
                digest = config_hash(settings)
                if digest in runs:
                    raise UserError(
                        f"it would train the same as {runs[digest].label}: they differ only in locations or speed "
                        "settings; if each location holds different data, train separate runs: easycap train ... "
                        + " ".join(varied)
                    )
                path = folders(named, settings["seed"], digest)
                _check_same_data(path, settings)
            except UserError as error:
                raise UserError(f"run {' '.join(varied)}: {error}" if varied else str(error)) from None
            runs[digest] = PlannedRun(path, (*common, *words, *_tracked(settings, folder)), varied)
            checked[runs[digest]] = settings
            progress.advance()
    return checked


def _telling(fixed: Sequence[Override], spaces: list[Axes], before: Axes) -> set[str]:
    """The keys that tell this folder's runs apart; one with a single value, such as a decoder's size, does not."""
    values: dict[str, set[str]] = {}
    of_fixed = {o.key_or_group: [o.get_value_string()] for o in fixed if o.key_or_group in before}
    for axes in (*spaces, of_fixed, before):
        for key, found in axes.items():
            values.setdefault(key, set()).update(found)
    return {key for key, found in values.items() if len(found) > 1}


def line_of(override: Override) -> str:
    """Return an override as it was written."""
    assert override.input_line is not None  # it was parsed from one
    return override.input_line


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+").partition("=")
    return key, value


def _check_same_data(run: Path, settings: Mapping[str, Any]) -> None:
    """Raise `UserError` for a run on other data: a run's hash leaves out where its data is, so that data may move."""
    now = {name: place for name in LOCATIONS if (place := _setting(settings, name)) is not None}
    if not now or not (run / "config.yaml").is_file():
        return
    stored: Any = OmegaConf.load(run / "config.yaml")
    for name, place in now.items():
        before = _setting(stored, name)
        if before is None or Path(str(before)).absolute() == Path(str(place)).absolute():
            continue
        if Path(str(before)).exists():
            raise UserError(f"{shown(run)} was trained on {name}={before}; choose another sweep.name")


def _setting(config: Mapping[str, Any], name: str) -> Any:
    group, _, key = name.partition(".")
    return (config.get(group) or {}).get(key)


class _Folders:
    """The folders of a sweep's runs: the one that a run already has, whatever the axes were then, or a new name."""

    def __init__(self, sweep: Path) -> None:
        self.sweep = sweep
        names = sorted(path.name for path in sweep.iterdir()) if sweep.is_dir() else []
        self._of_digest = {name.rpartition("-")[2]: name for name in names if "-" in name}
        self._groups = _groups()

    def __call__(self, named: Sequence[tuple[str, str]], seed: int, digest: str) -> Path:
        if digest in self._of_digest:
            return self.sweep / self._of_digest[digest]
        words = [
            value if key in self._groups else f"{key.rpartition('.')[2]}{value}"
            for key, value in named
            if key != "seed"
        ]
        plain = re.sub(r"[^\w.+-]+", "_", "-".join(words))[:80].strip("-_.")
        return self.sweep / "-".join([*filter(None, [plain]), f"s{seed}", digest])


def _groups() -> set[str]:
    """The config groups: their options are words that need no key."""
    folders = [config_dir(), *own_config_dirs()]
    return {
        *own_components(),
        *(path.name for folder in folders for path in folder.iterdir() if path.is_dir()),
    }


def _tracked(settings: Mapping[str, Any], folder: Path) -> list[str]:
    tracking = settings["tracking"]
    return [f"tracking.group={quoted(folder.name)}"] if tracking.get("group", "") is None else []


def read_plan(folder: Path) -> dict[str, Any]:
    """Return the content of a sweep's sweep.json, nothing where there is none."""
    path = folder / SWEEP
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
