"""Filter and sort a list of runs: `easycap runs --filter 'CIDEr-D>100' --filter 'time<1h' --sort -steps`."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from easycap.errors import UserError
from easycap.report.rich_tables import RunSummary
from easycap.report.scores import main_split, mapping
from easycap.utils.paths import config_files
from easycap.utils.text import duration_text, parse_duration

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
# Keys whose values are seconds; conditions give them as they are printed: 1h, 30 min.
_DURATIONS = ("time", "wall_seconds", "train_seconds")


def filtered(runs: Sequence[RunSummary], conditions: Sequence[str]) -> list[RunSummary]:
    """Return the runs for which all `conditions` ("KEY=VALUE", "KEY>VALUE", ...) hold.

    Text may have wildcards (run=*gpt2*); components also go by their option (decoder=gpt2_tiny). For a run
    without the key only != holds. Raises `UserError` for a condition
    that cannot be parsed and for a key that no run has.
    """
    tables = [facts(run) for run in runs]
    chosen = list(runs)
    for condition in conditions:
        key, sign, wanted = _parse(condition)
        key = _known(key, tables)
        compare = _OPERATORS[sign]
        if sign not in ("=", "!="):
            _require_numbers(condition, key, wanted, tables)
        chosen = [run for run in chosen if _holds(compare, key, _value(run, key, wanted), wanted)]
    return chosen


def ordered(runs: Sequence[RunSummary], key: str | None) -> list[RunSummary]:
    """Return the runs in ascending order of `key`, or descending for "-key"; those without it come last."""
    if key is None:
        return list(runs)
    down = key.startswith("-")
    name = _known(key.removeprefix("-"), [facts(run) for run in runs])
    have = [run for run in runs if facts(run).get(name) is not None]
    numeric = all(isinstance(facts(run)[name], (int, float)) for run in have)
    value = (lambda run: facts(run)[name]) if numeric else (lambda run: str(facts(run)[name]))
    return sorted(have, key=value, reverse=down) + [run for run in runs if facts(run).get(name) is None]


def facts(run: RunSummary) -> dict[str, Any]:
    """Return what runs can be filtered by: status, settings (data, trainer.epochs), scores x 100, cost."""
    found: dict[str, Any] = {"run": run.folder.resolve().name, "status": run.state, "started": run.started}
    found |= {"steps": run.steps, "time": run.seconds}
    found |= dict(_settings(run.config or {}))
    result = run.result or {}
    scores = mapping(mapping(result, "scores"), main_split(result)) if result else {}
    found |= {name: 100 * s["value"] for name, s in scores.items() if isinstance(s, Mapping) and "value" in s}
    found |= dict(mapping(result, "cost")) if result else {}
    return found


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for group, values in config.items():
        if not isinstance(values, Mapping):
            yield group, values
            continue
        yield group, values.get("name")
        yield from ((f"{group}.{key}", value) for key, value in values.items() if key != "name")


def _value(run: RunSummary, key: str, wanted: str) -> Any:
    """A run's value of `key`; of a component whose option has the name `wanted`, that name."""
    value, group = facts(run).get(key), mapping(run.config or {}, key)
    if value == wanted or not group or wanted not in config_files(key):
        return value
    from easycap.config.chosen_option import (
        chosen_option,  # loads omegaconf, which a list of runs does not need
    )

    return chosen_option(key, group)


def _parse(condition: str) -> tuple[str, str, str]:
    parts = re.split(r"(!=|>=|<=|=|>|<)", condition, maxsplit=1)
    if len(parts) != 3 or not parts[0] or not parts[2]:
        raise UserError(f"--filter {condition!r} must be KEY=VALUE, or use !=, >, >=, < or <= instead of =")
    return parts[0].strip(), parts[1], parts[2].strip()


def _known(key: str, tables: Sequence[Mapping[str, Any]]) -> str:
    """Return `key`, or the key of the column titled so; raises `UserError` if no run has it."""
    known = {name for table in tables for name in table}
    key = key if key in known else key.replace(" ", "_")
    if key in known:
        return key
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    plain = ", ".join(sorted(name for name in known if "." not in name))
    raise UserError(f"no run has {key!r}; {hint}allowed: {plain}, or a setting such as trainer.epochs")


def _require_numbers(condition: str, key: str, wanted: str, tables: Sequence[Mapping[str, Any]]) -> None:
    """Larger and smaller are for numbers, and for times of day, whose text is in order."""
    values = [table[key] for table in tables if table.get(key) is not None]
    if key != "started" and not all(isinstance(value, (int, float)) for value in values):
        raise UserError(f"--filter {condition!r}: {key} is text: use = or !=")
    if key in _DURATIONS and parse_duration(wanted) is None:
        raise UserError(f"--filter {condition!r}: {wanted!r} is not a duration such as 90s, 30m or 1.5h")
    if key not in ("started", *_DURATIONS) and _number(wanted) is None:
        raise UserError(f"--filter {condition!r}: {wanted!r} is not a number")


def _holds(compare: Callable[[Any, Any], bool], key: str, value: Any, wanted: str) -> bool:
    equality = compare in (operator.eq, operator.ne)
    if value is None:
        return compare is operator.ne or (compare is operator.eq and wanted in ("null", "none"))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = parse_duration(wanted) if key in _DURATIONS else _number(wanted)
        if number is None:
            return compare is operator.ne
        if equality and key in _DURATIONS:  # as exact as it is printed
            return compare(duration_text(value), duration_text(number))
        if equality and isinstance(value, float):
            return compare(round(value, _decimals(wanted)), number)  # as exact as it was typed
        return compare(float(value), number)
    text, wanted = str(value).lower(), wanted.lower()
    if equality and "*" in wanted:
        return compare(fnmatchcase(text, wanted.replace("[", "[[]")), True)
    return compare(text, wanted)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _decimals(text: str) -> int:
    return len(text.partition(".")[2]) if text.lower().find("e") < 0 else 12
