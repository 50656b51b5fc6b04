"""Names for the parts a config can choose.

A component registers itself under (group, name); `build.py` is the only place that looks names up. Config
schemas are derived from the registered constructors, so a component states its fields once.
"""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])

_COMPONENTS: dict[str, dict[str, Callable[..., Any]]] = {}


def register(group: str, name: str) -> Callable[[T], T]:
    """Register a class or function as option `name` of config group `group`; a name is taken only once."""

    def decorate(component: T) -> T:
        options = _COMPONENTS.setdefault(group, {})
        assert name not in options, f"{group}={name} is registered twice: {options[name]} and {component}"
        options[name] = component
        return component

    return decorate


def lookup(group: str, name: str) -> Callable[..., Any]:
    """Return the component registered as (group, name); `ValueError` names the options and the nearest match."""
    options = _COMPONENTS.get(group, {})
    if name not in options:
        raise ValueError(f"{group}.name={name!r} does not exist; {describe_choices(name, options)}")
    return options[name]


def parameters(component: Callable[..., Any]) -> dict[str, Any]:
    """Return {argument: type} of a component's constructor; all of them are keyword-only and typed."""
    hints = typing.get_type_hints(component.__init__ if inspect.isclass(component) else component)
    return {name: hints[name] for name in inspect.signature(component).parameters}


def names(group: str) -> list[str]:
    """Return the registered option names of a group, sorted."""
    return sorted(_COMPONENTS.get(group, {}))


def groups() -> list[str]:
    """Return the groups in which something is registered, sorted."""
    return sorted(_COMPONENTS)


def describe_choices(wrong: str, allowed: Iterable[str]) -> str:
    """Return 'did you mean x? allowed: a, b' for an error message about the word `wrong`; names of several words are
    quoted."""
    allowed = sorted(allowed)
    near = difflib.get_close_matches(wrong, allowed, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    shown = (repr(name) if " " in name else name for name in allowed)
    return f"{hint}allowed: {', '.join(shown) or 'nothing'}"
