"""Names for the parts a config can choose.

A component registers itself under (group, name): ours when `components.py` is imported, users' own when their packages
or modules are (`utils/plugins.py`). Names are looked up in `config/`, those of scorers in `metrics/scoring.py`, and
nowhere else. The signature says where each argument comes from: those before `*` are
supplied at run time (`supplied_to`), the keyword-only ones are the settings that the component's YAML states
(`settings_of`).
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from easycap.errors import UserError
from easycap.utils import plugins

T = TypeVar("T", bound=Callable[..., Any])

_COMPONENTS: dict[str, dict[str, Callable[..., Any]]] = {}
_CONDITION_GROUPS: set[str] = set()


def register(group: str, name: str) -> Callable[[T], T]:
    """Register a class or function as option `name` of config group `group`, e.g. "decoder"; a metric as a "scorer".

    Raises `UserError` for a name that another component has; the same one again, reloaded, replaces itself.
    """

    def decorate(component: T) -> T:
        options = _COMPONENTS.setdefault(group, {})
        if name in options and _origin(options[name]) != _origin(component):
            raise UserError(
                f"{group}={name} is registered twice, by {_origin(options[name])} and {_origin(component)}: "
                "choose another name for one of them"
            )
        options[name] = component
        return component

    return decorate


def _origin(component: Callable[..., Any]) -> str:
    return f"{component.__module__}.{component.__qualname__}"


def register_condition(group: str, name: str) -> Callable[[T], T]:
    """Register a text condition (see `types.TextCondition`) as `register` does; `group` names what it conditions on."""
    _CONDITION_GROUPS.add(group)
    return register(group, name)


def condition_groups() -> set[str]:
    """Return the groups whose options are text conditions, those of users' packages among them."""
    _load_components()
    load_plugins()
    return set(_CONDITION_GROUPS)


def is_condition(group: str) -> bool:
    """Return whether the options of a group are text conditions."""
    _load_components()
    if group not in _COMPONENTS:
        load_plugins()
    return group in _CONDITION_GROUPS


def lookup(group: str, name: str) -> Callable[..., Any]:
    """Return the component registered as (group, name); `UserError` names the options and the nearest match.

    Users' packages are loaded only for a name that easycap itself does not have.
    """
    for load in (_load_components, load_plugins):
        if name not in _COMPONENTS.get(group, {}):
            load()
    options = _COMPONENTS.get(group, {})
    if name not in options:
        choices = describe_choices(name, options)
        raise UserError(f"{group}.name={name!r} does not exist; {choices}{plugins.failures()}")
    return options[name]


def _load_components() -> None:
    """Import the modules that register the built-in components; late, since most of them load torch."""
    importlib.import_module("easycap.components")


def load_plugins() -> None:
    """Import users' installed packages, after our own components so that our names are not taken.

    Raises nothing: error messages end with `plugins.failures`.
    """
    if plugins.installed():
        _load_components()
        plugins.load_installed()


def import_modules(modules: Iterable[str]) -> None:
    """Import the modules with components that a config names; `UserError` names one that cannot be imported."""
    if modules := list(modules):
        _load_components()
        plugins.import_modules(modules)


class SharedSettings:
    """Base class of dataclasses whose fields several components of a group have in common.

    A component that takes one, keyword-only, has its fields in the YAML as if they were arguments of its own.
    """


def settings_of(component: Callable[..., Any]) -> dict[str, Any]:
    """Return {setting: type} of a component: its keyword-only arguments, those of `SharedSettings` spread out."""
    found: dict[str, Any] = {}
    for name, annotation in _arguments(component, inspect.Parameter.KEYWORD_ONLY).items():
        found |= typing.get_type_hints(annotation) if _is_shared(annotation) else {name: annotation}
    return found


def supplied_to(component: Callable[..., Any]) -> list[str]:
    """Return the names of what a component is given at run time: its arguments before `*`."""
    return list(_arguments(component, inspect.Parameter.POSITIONAL_OR_KEYWORD))


def construct(component: Callable[..., Any], settings: Mapping[str, Any], supplied: Mapping[str, Any]) -> Any:
    """Return the component made with its settings; of `supplied` it gets what it asks for."""
    given = dict(settings)
    for name, annotation in _arguments(component, inspect.Parameter.KEYWORD_ONLY).items():
        if _is_shared(annotation):
            given[name] = annotation(**{key: given.pop(key) for key in typing.get_type_hints(annotation)})
    return component(*_supplied(component, supplied), **given)


def check_shared_settings(component: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Raise `UserError` as the `SharedSettings` of a component do, without making the component."""
    for kind in _arguments(component, inspect.Parameter.KEYWORD_ONLY).values():
        if _is_shared(kind):
            kind(**{key: settings[key] for key in typing.get_type_hints(kind)})


def _supplied(component: Callable[..., Any], supplied: Mapping[str, Any]) -> list[Any]:
    wanted = supplied_to(component)
    if missing := [name for name in wanted if name not in supplied]:
        raise UserError(
            f"{_origin(component)} asks for {missing[0]!r} before `*`, which nothing "
            f"supplies here; supplied are: {', '.join(sorted(supplied)) or 'nothing'}. Settings stand after `*`"
        )
    return [supplied[name] for name in wanted]


@functools.cache
def _arguments(component: Callable[..., Any], kind: Any) -> Mapping[str, Any]:
    """{argument: type} of a component's constructor, of one kind of parameters."""
    hints = typing.get_type_hints(component.__init__ if inspect.isclass(component) else component)
    names = [
        name for name, parameter in inspect.signature(component).parameters.items() if parameter.kind is kind
    ]
    if kind is inspect.Parameter.KEYWORD_ONLY and (untyped := [name for name in names if name not in hints]):
        raise UserError(
            f"{_origin(component)}: the setting {untyped[0]} has no type: write e.g. {untyped[0]}: int"
        )
    return {name: hints.get(name, Any) for name in names}


def _is_shared(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, SharedSettings)


def registered(group: str) -> dict[str, Callable[..., Any]]:
    """Return {name: component} of what imported modules have registered, without importing the others."""
    return dict(_COMPONENTS.get(group, {}))


def own_components() -> dict[str, dict[str, Callable[..., Any]]]:
    """Return {group: {name: component}} of users' components, as far as they are loaded; metrics have no config."""
    return {
        group: own
        for group, options in _COMPONENTS.items()
        if group != "scorer" and (own := {name: part for name, part in options.items() if not _is_ours(part)})
    }


def _is_ours(component: Callable[..., Any]) -> bool:
    return component.__module__.startswith("easycap.")


def names(group: str) -> list[str]:
    """Return the registered option names of a group, sorted."""
    _load_components()
    return sorted(_COMPONENTS.get(group, {}))


def groups() -> list[str]:
    """Return the groups in which something is registered, sorted."""
    _load_components()
    return sorted(_COMPONENTS)


def describe_choices(wrong: str, allowed: Iterable[str]) -> str:
    """Return 'did you mean x? allowed: a, b' for an error message about the word `wrong`; names of several words are
    quoted, and those in one folder written as folder/{a,b}.
    """
    allowed = sorted(allowed)
    near = difflib.get_close_matches(wrong, allowed, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    folders: dict[str, list[str]] = {}
    for name in allowed:
        folder, slash, last = ("", "", repr(name)) if " " in name else name.rpartition("/")
        folders.setdefault(folder + slash, []).append(last)
    shown = (
        f"{folder}{{{','.join(lasts)}}}" if folder and len(lasts) > 1 else folder + ", ".join(lasts)
        for folder, lasts in folders.items()
    )
    return f"{hint}allowed: {', '.join(shown) or 'nothing'}"
