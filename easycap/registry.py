"""Names for the parts a config can choose.

A component registers itself under (group, name). Names are looked up in `config/`, those of scorers in
`metrics/scoring.py`, and nowhere else. The signature says where each argument comes from: those before `*` are
supplied at run time (`supplied_to`), the keyword-only ones are the settings that the component's YAML states
(`settings_of`).
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from easycap.errors import UserError

T = TypeVar("T", bound=Callable[..., Any])

_COMPONENTS: dict[str, dict[str, Callable[..., Any]]] = {}
_CONDITION_GROUPS: set[str] = set()


def register(group: str, name: str) -> Callable[[T], T]:
    """Register a class or function as option `name` of config group `group`; a name is taken only once."""

    def decorate(component: T) -> T:
        options = _COMPONENTS.setdefault(group, {})
        assert name not in options, f"{group}={name} is registered twice: {options[name]} and {component}"
        options[name] = component
        return component

    return decorate


def register_condition(group: str, name: str) -> Callable[[T], T]:
    """Register a text condition (see `types.TextCondition`) as `register` does; `group` names what it conditions on."""
    _CONDITION_GROUPS.add(group)
    return register(group, name)


def condition_groups() -> set[str]:
    """Return the groups whose options are text conditions."""
    _load_components()
    return set(_CONDITION_GROUPS)


def lookup(group: str, name: str) -> Callable[..., Any]:
    """Return the component registered as (group, name); `UserError` names the options and the nearest match."""
    if name not in _COMPONENTS.get(group, {}):
        _load_components()
    options = _COMPONENTS.get(group, {})
    if name not in options:
        raise UserError(f"{group}.name={name!r} does not exist; {describe_choices(name, options)}")
    return options[name]


def _load_components() -> None:
    """Import the modules that register the built-in components; late, since most of them load torch."""
    importlib.import_module("easycap.components")


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
        raise TypeError(
            f"{component.__module__}.{component.__qualname__} asks for {missing[0]!r} before `*`, which nothing "
            f"supplies here; supplied are: {', '.join(sorted(supplied)) or 'nothing'}. Settings stand after `*`"
        )
    return [supplied[name] for name in wanted]


def _arguments(component: Callable[..., Any], kind: Any) -> dict[str, Any]:
    """{argument: type} of a component's constructor, of one kind of parameters."""
    hints = typing.get_type_hints(component.__init__ if inspect.isclass(component) else component)
    parameters = inspect.signature(component).parameters.items()
    return {name: hints[name] for name, parameter in parameters if parameter.kind is kind}


def _is_shared(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, SharedSettings)


def registered(group: str) -> dict[str, Callable[..., Any]]:
    """Return {name: component} of what imported modules have registered, without importing the others."""
    return dict(_COMPONENTS.get(group, {}))


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
    quoted.
    """
    allowed = sorted(allowed)
    near = difflib.get_close_matches(wrong, allowed, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    shown = (repr(name) if " " in name else name for name in allowed)
    return f"{hint}allowed: {', '.join(shown) or 'nothing'}"
