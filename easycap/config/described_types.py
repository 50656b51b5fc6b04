"""Types and values of settings in the words of an error message."""

from __future__ import annotations

import inspect
import types
import typing
from enum import Enum
from typing import Any

from omegaconf import OmegaConf


def has_fixed_length(annotation: Any) -> bool:
    """Return whether a type is a tuple of so many values."""
    return typing.get_origin(annotation) is tuple and Ellipsis not in typing.get_args(annotation)


def shown_value(value: Any) -> str:
    """Return a value of a config as a message quotes it."""
    if value is None:
        return "null"
    return str(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)


def described_type(annotation: Any) -> str:
    """Return in words what a setting of this type takes."""
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return "one of " + ", ".join(member.name for member in annotation)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    members = typing.get_args(annotation) if not isinstance(annotation, type) else ()
    if annotation in names:
        return names[annotation]
    if members and typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(described_type(member) for member in members)
    origin = typing.get_origin(annotation)
    if origin is dict:
        value = "number" if members[1] is float else "value"
        return f"a mapping from names to {value}s, e.g. '{{a: 1}}'"
    if origin in (list, tuple):
        names = {int: "whole numbers", float: "numbers", str: "texts"}
        return f"a list of {f'{len(members)} ' if has_fixed_length(annotation) else ''}{names[members[0]]}, e.g. [a,b]"
    return str(annotation)
