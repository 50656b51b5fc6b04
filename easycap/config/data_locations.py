"""Locations of data: settings that may differ between machines for the same run."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from easycap.errors import UserError
from easycap.utils.hub import is_hub_name
from easycap.utils.paths import expanded

# Settings whose stored value can be replaced by `data.root=...` and the like.
LOCATIONS = ("data.root", "data.path", "data.images", "data.captions", "encoder.features")
_FLAGS = {"--data-root": "data.root", "--data-images": "data.images", "--data-captions": "data.captions"}
_FLAGS |= {"--data-path": "data.path", "--features": "encoder.features"}
_WORD = re.compile(rf"\+{{0,2}}({'|'.join(map(re.escape, LOCATIONS))})=(.*)", re.DOTALL)
# Ignored when configs are compared or hashed; of the other paths only the last component counts.
_IGNORED = ("data.root", "data.images", "data.cache", "data.cache_gb")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --data-root and its like to a command that reads a run's data; `locations_from_args` reads them."""
    group = parser.add_argument_group(
        "if the run's data has moved, its new location (data.root=DIR and the like do the same)"
    )
    for flag, key in _FLAGS.items():
        group.add_argument(flag, dest=key, metavar="PATH", help=f"replaces the run's {key}")


def split_locations(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Split arguments into those that are not data.root=DIR or the like, and {setting: path} of those that are."""
    matches = {word: found for word in argv if (found := _WORD.fullmatch(word))}
    return [word for word in argv if word not in matches], {m[1]: m[2] for m in matches.values()}


def locations_from_args(args: argparse.Namespace) -> dict[str, str]:
    """Return {setting: path} of the flags that `add_arguments` added."""
    return {key: vars(args)[key] for key in _FLAGS.values() if vars(args)[key] is not None}


def with_locations(config: dict[str, Any], locations: Mapping[str, str]) -> dict[str, Any]:
    """Return a checked config with its data at `locations` {setting: path}; `UserError` for a setting that it lacks."""
    for name, path in locations.items():
        group, _, key = name.partition(".")
        if not _has(config, name):
            has = [location for location in LOCATIONS if _has(config, location)]
            there = f"it has {', '.join(has)}" if has else "it reads no files that could have moved"
            raise UserError(f"{name}={path}: the run's {group}={config[group]['name']} has no {key}; {there}")
        config = config | {group: config[group] | {key: path}}
    return absolute(config)


def _has(config: Mapping[str, Any], name: str) -> bool:
    group, _, key = name.partition(".")
    return key in config[group]


def absolute(config: dict[str, Any]) -> dict[str, Any]:
    """Return a checked config with absolute paths to its data."""
    for name in (*LOCATIONS, "data.cache"):
        group, _, key = name.partition(".")
        path = config[group].get(key)
        if path is not None and not _is_within_root(config, name) and not _is_remote(name, path):
            config = config | {group: config[group] | {key: str(expanded(path).absolute())}}
    return config


def _is_within_root(config: Mapping[str, Any], name: str) -> bool:
    """Whether a setting names something below data.root, as Flickr8k's data.images does."""
    return name in ("data.images", "data.captions") and "root" in config["data"]


def _is_remote(name: str, path: str) -> bool:
    """Whether a setting names a data set on the Hugging Face hub, or the address of one."""
    return (name == "data.path" and is_hub_name(path)) or path.startswith(("http://", "https://"))


def check_locations(config: Mapping[str, Any]) -> None:
    """Raise `UserError`, with the remedy, if the data of a stored config is no longer there."""
    for name in LOCATIONS:
        group, _, key = name.partition(".")
        path = config[group].get(key)
        if path is None or _is_within_root(config, name) or _is_remote(name, path):
            continue
        if not Path(path).exists():
            raise UserError(
                f"{name}={path} does not exist; if the run's data has moved, pass its new location as {name}=PATH"
            )


def without_locations(group: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config group without the locations of its data, to compare configs across machines."""
    kept = {key: value for key, value in values.items() if f"{group}.{key}" not in _IGNORED}
    names = [location.partition(".")[2] for location in LOCATIONS if location.startswith(f"{group}.")]
    return {
        key: Path(value).name
        if key in names and isinstance(value, str) and not _is_remote(f"{group}.{key}", value)
        else value
        for key, value in kept.items()
    }
