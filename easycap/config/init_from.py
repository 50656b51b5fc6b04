"""`init_from=RUN`: that run's data and model settings become the new run's defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from easycap.config.options import read_yaml
from easycap.config.schema import GROUPS, check_stored, groups_of, to_plain
from easycap.errors import UserError
from easycap.runs import provenance
from easycap.runs.find import CONFIG, checkpoint_of, run_of
from easycap.runs.reading import read_result
from easycap.utils.paths import config_files, expanded

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

# The new run's own; all other groups (data, model, evaluation) are taken from the run it starts from.
_OWN = {"objective", "optim", "schedule", "trainer", "tracking"}
_TAKEN = tuple(group for group in GROUPS if group not in _OWN)
# From a run of the other task only the encoder can be used, with the same data.
_TAKEN_OF_OTHER_TASK = ("data", "encoder")


def initial_run_config(run: str) -> dict[str, Any]:
    """Return the checked config of the best checkpoint of `run`; `UserError` if there is none."""
    try:
        text = (checkpoint_of(expanded(run)) / CONFIG).read_text(encoding="utf-8")
        return check_stored(OmegaConf.create(json.loads(text)))
    except (OSError, ValueError) as error:
        raise UserError(f"init_from={run}: {error}") from None


def with_defaults_of(config: DictConfig, overrides: Sequence[Override]) -> DictConfig:
    """Return the composed config with the settings of `config.init_from` as defaults.

    A group set on the command line or in a recipe (`experiment=`) replaces the whole stored group; a
    field replaces only that field.
    """
    stored = OmegaConf.create(to_plain(initial_run_config(config.init_from)))
    groups, fields = _asked_for(config, overrides)
    same_task = stored.task == config.task
    result = config.copy()
    result.imports = list(dict.fromkeys([*stored.imports, *config.imports]))
    taken = (*_TAKEN, *groups_of(stored)[len(GROUPS) :]) if same_task else _TAKEN_OF_OTHER_TASK
    for group in taken:
        if group in groups:
            continue
        part = stored[group].copy()
        for key in fields:
            if (
                key.partition(".")[0] == group
                and OmegaConf.select(config, key, default=_ABSENT) is not _ABSENT
            ):
                name = key.partition(".")[2]
                OmegaConf.update(part, name, OmegaConf.select(config, key), force_add=True, merge=False)
        result[group] = part
    asked = result.captioner.get("word_vectors")
    if same_task and asked != stored.captioner.get("word_vectors"):
        raise UserError(
            f"captioner.word_vectors={asked} is where the words of a new decoder start, and init_from="
            f"{config.init_from} brings its own: leave it out"
        )
    return result


_ABSENT = object()
_NO_CONDITION = {"name": "none"}


def is_trained_here(run: str) -> bool:
    """Return whether easycap trained the weights of `run`: the settings of imported ones' training are not known."""
    return provenance.is_trained_here(read_result(run_of(checkpoint_of(expanded(run)))) or {})


def differences(
    stored: Mapping[str, Any], config: Mapping[str, Any], *, trained_here: bool = True
) -> list[str]:
    """Return how a config differs from the stored one, as overrides followed by the old value; without settings of
    training where the stored weights were not trained here.
    """
    found = []
    unknown = () if trained_here else provenance.OF_TRAINING
    for group in dict.fromkeys([*groups_of(stored), *groups_of(config)]):
        if group in unknown:
            continue
        old, new = (to_plain(one.get(group, _NO_CONDITION)) for one in (stored, config))
        if group == "tracking" or old == new:
            continue
        if old["name"] != new["name"]:
            found.append(f"{group}={new['name']} (was {old['name']})")
            continue
        found += [
            f"{group}.{key}={_shown(new.get(key))} (was {_shown(old.get(key))})"
            for key in new
            if new.get(key) != old.get(key)
        ]
    return found


def _shown(value: Any) -> str:
    return "null" if value is None else json.dumps(value, ensure_ascii=False).strip('"')


def _asked_for(config: DictConfig, overrides: Sequence[Override]) -> tuple[set[str], set[str]]:
    """The groups and fields set on the command line or in its recipe."""
    groups: set[str] = set()
    fields: set[str] = set()
    known = groups_of(config)
    for override in overrides:
        key = override.key_or_group
        if key == "experiment":
            of_recipe = _of_recipe(None if override.value() is None else str(override.value()))
            groups, fields = groups | of_recipe[0], fields | of_recipe[1]
        elif key in known and not isinstance(override.value(), dict):
            groups.add(key)
        elif key.partition(".")[0] in known:
            fields.add(key)
    return groups, fields


def _of_recipe(name: str | None) -> tuple[set[str], set[str]]:
    """The groups and fields set in a recipe of conf/experiment and its base recipes."""
    if name is None:
        return set(), set()
    recipe = read_yaml(config_files("experiment")[name])
    groups: set[str] = set()
    fields: set[str] = set()
    for entry in recipe.pop("defaults", []):
        if isinstance(entry, str):
            of_base = _of_recipe(entry.removeprefix("/experiment/")) if entry != "_self_" else (set(), set())
            groups, fields = groups | of_base[0], fields | of_base[1]
        else:
            groups |= {key.removeprefix("override").strip().lstrip("/") for key in entry}
    for group, values in recipe.items():
        keys = values.keys() if isinstance(values, DictConfig) else ()
        fields |= {f"{group!s}.{key!s}" for key in keys}
    return groups, fields
