"""A search space as combinations of overrides: which keys vary, which values they take."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Glob, IntervalSweep, Override

from easycap.config.overrides import parse, value_text
from easycap.errors import UserError

_INTERVAL = re.compile(r"\s*(tag|int|float|interval)\s*\(")

# Every key that varies, with its values as they are written in an override.
Axes = dict[str, list[str]]


def axes_of(overrides: Sequence[Override], options: Callable[[str], list[str]]) -> Axes:
    """Return the axes among overrides such as vocab=word,bert or seed=range(1,4).

    `options` lists a config group's options, for glob(...). Raises `UserError` for what has no list of values.
    """
    return {o.key_or_group: _values(o, options) for o in overrides if o.is_sweep_override()}


def _values(override: Override, options: Callable[[str], list[str]]) -> list[str]:
    value = override.value()
    if isinstance(value, Glob):
        found = value.filter(options(override.key_or_group))
        if not found:
            raise UserError(f"{override.input_line} matches no option of {override.key_or_group}")
        return found
    if override.is_interval_sweep():
        raise UserError(
            f"{override.input_line} has infinitely many values: list some of them, e.g. "
            f"{override.key_or_group}=0.1,0.2,0.3, or set sweep.search=optuna"
        )
    return list(override.sweep_string_iterator())


def products(spaces: Any, asked: Axes, fixed: Sequence[str]) -> list[Axes]:
    """Return the products whose union a sweep runs.

    `spaces` are the axes of a sweep's YAML: one mapping {key: values} or a list of them, values a list or the text of
    one ("1,2,5"). Axes `asked` for on the command line are added to each, or replace the one of the same key; a key
    `fixed` there does not vary. Raises `UserError` naming what cannot be read.
    """
    spaces = [spaces] if isinstance(spaces, Mapping) else spaces
    if not isinstance(spaces, Sequence) or not all(isinstance(space, Mapping) for space in spaces):
        raise UserError("sweep.axes must be a mapping such as {seed: [1, 2]}, or a list of them")
    found = []
    for space in spaces or [{}]:
        own = {key: _texts(key, values) for key, values in space.items() if key not in fixed}
        product = own | asked
        if product not in found:
            found.append(product)
    return found


def _texts(key: str, values: Any) -> list[str]:
    if isinstance(values, str):
        return [value.strip() for value in values.split(",")]
    if isinstance(values, (list, tuple)):
        return [_text(key, value) for value in values]
    if values is None or isinstance(values, Mapping):
        raise UserError(f"sweep.axes.{key} must be a list of values, e.g. {key}: [1, 2]")
    return [_text(key, values)]


def _text(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return value_text(key, value)
    return value if isinstance(value, str) else json.dumps(value)


def combinations(product: Axes) -> list[dict[str, str]]:
    """Return every combination {key: value} of a product of axes, the last axis changing fastest."""
    return [dict(zip(product, values, strict=True)) for values in itertools.product(*product.values())]


class Interval(NamedTuple):
    """Numbers from `low` to `high`, both included: whole ones, or drawn on a `log` scale."""

    low: float
    high: float
    whole: bool
    log: bool


Space = dict[str, list[str] | Interval]


def search_space(
    axes: Any, varied: Sequence[Override], fixed: Sequence[Override], options: Callable[[str], list[str]]
) -> Space:
    """Return {setting: its values as texts, or an interval} of `axes`, those of a sweep's YAML, and of overrides.

    Raises `UserError` for what cannot be searched.
    """
    if not isinstance(axes, Mapping):
        raise UserError(
            "sweep.search=optuna needs one mapping {setting: values}, and sweep.axes is a list of them"
        )
    kept = [override.key_or_group for override in fixed]
    asked = {override.key_or_group for override in varied}
    intervals = {k: v for k, v in axes.items() if isinstance(v, str) and _INTERVAL.match(v)}
    own = [f"{key}={value}" for key, value in intervals.items() if key not in {*kept, *asked}]
    varied = [*varied, *parse(own, sweep=True)]
    lists = [override for override in varied if not override.is_interval_sweep()]
    (values,) = products(
        {key: value for key, value in axes.items() if key not in intervals and key not in asked},
        axes_of(lists, options),
        kept,
    )
    space: Space = {**values, **{o.key_or_group: _interval(o) for o in varied if o.is_interval_sweep()}}
    if not space:
        raise UserError(
            "sweep.search=optuna has nothing to search over: give settings several values, or interval(LOW,HIGH)"
        )
    return space


def _interval(override: Override) -> Interval:
    value = override.value()
    assert isinstance(value, IntervalSweep)
    assert value.start is not None
    assert value.end is not None
    if unknown := value.tags - {"log"}:
        raise UserError(f"{override.input_line}: unknown tag {min(unknown)}; allowed: log")
    whole = isinstance(value.start, int) and isinstance(value.end, int)
    found = Interval(value.start, value.end, whole, "log" in value.tags)
    if found.low >= found.high or (found.log and found.low <= 0):
        above = " and above 0, because of the log scale" * found.log
        raise UserError(f"{override.input_line}: the first number must be below the second{above}")
    return found
