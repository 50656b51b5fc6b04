"""The settings in which runs differ, as dotted keys of config.yaml."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from easycap.report.numbers import NOTHING

SEED = "seed"
# Where a run reports to, what it went on from, where and how fast it ran, say nothing of what was trained.
_LEFT_OUT = ("tracking", "resume", "device", "data.cache", "data.workers", "trainer.workers")


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return {dotted key: value as text}; the name of a group's option goes by the group's own key."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if prefix + str(key) in _LEFT_OUT:
            continue
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[(prefix + str(key)).removesuffix(".name")] = value_text(value)
    return found


def value_text(value: Any) -> str:
    """Return a value as one types it on the command line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def differing(runs: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Return the keys with two values or more among `runs`, without the seed, in the order of the configs.

    A key that only some runs have, all with one value, belongs to a choice that another key names; but an entry of a
    setting that is a table (`objective.rewards.truth`) differs from none where that choice is the same.
    """
    keys = dict.fromkeys(key for settings in runs for key in settings if key != SEED)
    return tuple(
        key
        for key in keys
        if len({settings[key] for settings in runs if key in settings}) > 1 or _is_added(runs, key)
    )


def _is_added(runs: Sequence[Mapping[str, str]], key: str) -> bool:
    """Whether an entry of a table is there in some runs and not in others with the same choice in its group."""
    group = group_of(key)
    having = {settings.get(group) for settings in runs if key in settings}
    lacking = {settings.get(group) for settings in runs if key not in settings}
    return key.count(".") > 1 and bool(having & lacking)


def group_of(key: str) -> str:
    """Return the config group of a dotted key, which is also the key of the group's choice."""
    return key.split(".")[0]


def follows(runs: Sequence[Mapping[str, str]], other: str, key: str) -> bool:
    """Return whether `other` has one value, or none, for each value of `key`."""
    seen: dict[str | None, set[str | None]] = {}
    for settings in runs:
        seen.setdefault(settings.get(key), set()).add(settings.get(other))
    return all(len(values) == 1 for values in seen.values())


def following(runs: Sequence[Mapping[str, str]], keys: Sequence[str]) -> tuple[str, ...]:
    """Return those of `keys` that change only with their group's choice, as a decoder's own sizes do."""
    return tuple(
        key
        for key in keys
        if group_of(key) != key and group_of(key) in keys and follows(runs, key, group_of(key))
    )


def label(settings: Mapping[str, str], keys: Sequence[str]) -> str:
    """Return a run's settings in a few words: choices alone, the others as key=value by their last part."""
    parts = []
    for key in keys:
        if key in settings:
            name = key.rsplit(".", 1)[-1]
            parts.append(settings[key] if "." not in key and key != SEED else f"{name}={settings[key]}")
    return " ".join(parts)


def sort_key(text: str) -> tuple[int, float, str]:
    """Order of values: numbers by size, then texts, then what is missing."""
    if text == NOTHING:
        return (2, 0.0, "")
    try:
        return (0, float(text), "")
    except ValueError:
        return (1, 0.0, text)
