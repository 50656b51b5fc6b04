"""The settings in which runs differ, as dotted keys of config.yaml."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from easycap.config.data_locations import LOCATIONS
from easycap.runs.reading import data_name
from easycap.utils.text import NOTHING

SEED = "seed"
# Where a run reports to, what it started from, where and how fast it ran, do not affect what was trained.
_LOCATIONS = ("data.root", "data.images")
_NOT_SETTINGS = (
    *("tracking", "resume", "imports", "device", "data.workers", "trainer.workers", "trainer.threads"),
    *("trainer.max_hours", "trainer.checkpoint_every_steps", "trainer.keep_checkpoints", "trainer.shard"),
    *(*_LOCATIONS, "data.cache"),
    *("ensemble.members", "average.of"),
)
# How many runs or checkpoints an ensemble or a run of averaged weights is made of; other runs lack them.
ENSEMBLE_SIZE, AVERAGE_SIZE = "ensemble.size", "average.size"


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return {dotted key: value as text}; the name of a group's option goes by the group's own key."""
    found: dict[str, str] = {}
    if not prefix and isinstance(data := config.get("data"), Mapping) and "dataset" in data:
        own = {key: value for key, value in data.items() if key != "dataset"}
        config = {**config, "data": own | {"name": data_name(config)}}
    for key, value in config.items():
        if prefix + str(key) in _NOT_SETTINGS:
            continue
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            # Of data that lies at two places only the name tells anything.
            plain = Path(value).name if prefix + str(key) in LOCATIONS and isinstance(value, str) else value
            found[(prefix + str(key)).removesuffix(".name")] = value_text(plain)
    return found


def locations(config: Mapping[str, Any]) -> dict[str, str]:
    """Return {dotted key: path} of where a run's data lies, which `flat` leaves out."""
    data = config.get("data")
    values = data if isinstance(data, Mapping) else {}
    found = {key: values.get(key.partition(".")[2]) for key in _LOCATIONS}
    return {key: path for key, path in found.items() if isinstance(path, str)}


def with_locations(
    runs: Sequence[Mapping[str, str]],
    locations: Sequence[Mapping[str, str]],
    references: Sequence[str | None],
) -> list[dict[str, str]]:
    """Return the settings of `runs`, with the `locations` of data that differs though its settings are equal.

    `references` are digests: the same data at two places is one, and goes by the first of them.
    """
    kinds = [
        tuple((key, value) for key, value in settings.items() if group_of(key) == "data") for settings in runs
    ]
    first: dict[Any, Mapping[str, str]] = {}
    for kind, digest, location in zip(kinds, references, locations, strict=True):
        first.setdefault((kind, digest), location)
    several = {kind for kind in kinds if sum(kind == other for other, _ in first) > 1}
    added = [
        first[kind, digest] if kind in several else {} for kind, digest in zip(kinds, references, strict=True)
    ]
    shown = {key: _shortest({location[key] for location in added if key in location}) for key in _LOCATIONS}
    return [
        {**settings, **{key: shown[key][path] for key, path in location.items()}}
        for settings, location in zip(runs, added, strict=True)
    ]


def _shortest(paths: set[str]) -> dict[str, str]:
    """{path: the path without the folders that all share}."""
    try:
        shared = os.path.commonpath(paths) if len(paths) > 1 else ""
    except ValueError:  # absolute and relative ones
        shared = ""
    return {path: os.path.relpath(path, shared) if shared else path for path in paths}


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
        if len({settings[key] for settings in runs if key in settings}) > 1
        or _is_added(runs, key)
        or (key in (ENSEMBLE_SIZE, AVERAGE_SIZE) and any(key not in settings for settings in runs))
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


def most_balanced(runs: Sequence[Sequence[str]]) -> int:
    """Return the index of the setting whose values share the runs most evenly, of equally even ones the one with most
    values; -1 if each setting has one value, or a value of its own for each run.

    `runs` have their values in the same order.
    """
    best, chosen = (0.0, 0), -1
    for index, values in enumerate(zip(*runs, strict=True)):
        counts = Counter(values)
        if not 1 < len(counts) < len(runs):
            continue
        entropy = -sum(n / len(runs) * math.log(n / len(runs)) for n in counts.values())
        rank = (round(entropy / math.log(len(counts)), 2), len(counts))
        if rank > best:
            best, chosen = rank, index
    return chosen
