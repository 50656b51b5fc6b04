"""The options of config groups: YAML files, and users' components without one, whose signature says what it would.

Users' packages are imported only for what no YAML file on disk has.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from yaml import YAMLError

from easycap.errors import UserError
from easycap.registry import (
    SharedSettings,
    describe_choices,
    import_modules,
    load_plugins,
    own_components,
    settings_of,
)
from easycap.utils.paths import config_files


def options(group: str) -> list[str]:
    """Return the options of a config group, sorted; recipes have their folder before."""
    load_plugins()
    return sorted({*config_files(group), *own_components().get(group, {})})


def has_option(group: str, name: Any) -> bool:
    """Return whether a config group has an option."""
    return name in config_files(group) or name in options(group)


def option_values(group: str, name: str) -> DictConfig:
    """Return the settings of an option, with those of the same group that its YAML changes."""
    files = config_files(group)
    if name not in files:
        load_plugins()
        return OmegaConf.create(values_of_signature(name, own_components()[group][name]))
    values = read_yaml(files[name])
    bases = [option_values(group, base) for base in values.pop("defaults", [])]
    merged = OmegaConf.merge(*bases, values)
    assert isinstance(merged, DictConfig)
    return merged


def options_without_yaml() -> dict[tuple[str, str], dict[str, Any]]:
    """Return {(group, option): its values} of users' components that have no YAML, as far as they are loaded."""
    return {
        (group, name): values_of_signature(name, component)
        for group, parts in own_components().items()
        for name, component in parts.items()
        if name not in config_files(group)
    }


def values_of_signature(name: str, component: Callable[..., Any]) -> dict[str, Any]:
    """Return what the YAML of a component would state: its settings with their defaults, ??? where there is none."""
    defaults: dict[str, Any] = {}
    for parameter in inspect.signature(component).parameters.values():
        defaults[parameter.name] = parameter.default
    for kind in typing.get_type_hints(
        component.__init__ if inspect.isclass(component) else component
    ).values():
        if inspect.isclass(kind) and issubclass(kind, SharedSettings) and dataclasses.is_dataclass(kind):
            defaults |= {field.name: field.default for field in dataclasses.fields(kind)}
    absent = (inspect.Parameter.empty, dataclasses.MISSING)
    values = {setting: defaults.get(setting, absent[0]) for setting in settings_of(component)}
    return {"name": name} | {
        setting: MISSING if any(value is one for one in absent) else value
        for setting, value in values.items()
    }


def import_of_recipe(name: str) -> None:
    """Import the modules that a recipe of conf/experiment names, or one that it builds on."""
    recipe = read_yaml(config_files("experiment")[name])
    for base in recipe.get("defaults", []):
        if isinstance(base, str) and (key := base.removeprefix("/experiment/")) in config_files("experiment"):
            import_of_recipe(key)
    if OmegaConf.is_list(modules := recipe.get("imports")):
        import_modules(map(str, modules))


def read_yaml(path: Path) -> DictConfig:
    """Return the mapping that a YAML holds; `UserError` if it holds something else."""
    try:
        values = OmegaConf.load(path)
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(values, DictConfig):
        raise UserError(f"{path} must hold a mapping: KEY: VALUE")
    return values


_FEW = 2  # no more options than these are proposed beside the chosen one's settings


def instead_of(group: str, key: str, allowed: Iterable[str]) -> str:
    """Return what to write instead of a setting that an option lacks: one it has, or an option that has this one."""
    others = [name for name in options(group) if key in option_values(group, name).keys()]  # noqa: SIM118  with ???
    allowed = list(allowed)
    ways = [describe_choices(key, allowed)] if allowed or not others else []
    if others and (not allowed or len(others) <= _FEW):
        ways.append(f"choose {' or '.join(f'{group}={name}' for name in others)}")
    return "; or ".join(ways)
