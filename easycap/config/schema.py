"""Configs, checked before any work: every group against the constructor of the component it names.

A component states its settings once, as the keyword-only typed arguments of its constructor; the YAML of an option
states their values once. What is supplied at run time stands before `*` in the constructor and is in no YAML. This
file reads signatures from the registry and knows no component.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
import typing
from collections.abc import Mapping
from dataclasses import field, make_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from easycap.config.data_locations import absolute, without_locations
from easycap.config.described_types import described_type, has_fixed_length, shown_value
from easycap.config.options import has_option, instead_of, option_values, options
from easycap.errors import UserError
from easycap.registry import condition_groups, describe_choices, import_modules, lookup, settings_of
from easycap.runs.migrate import (
    RENAMED_KEYS,
    RENAMED_VALUES,
    drop_former_values,
    fill_former_values,
    update_settings,
)
from easycap.utils.plugins import failures, installed_modules

GROUPS = (
    "data",
    "captioner",
    "vocab",
    "encoder",
    "image_tokens",
    "tags",
    "draft",
    "tagger",
    "tag_vocab",
    "decoder",
    "objective",
    "optim",
    "schedule",
    "trainer",
    "validation",
    "decoding",
    "refine",
    "tracking",
)

# What `captioner=parts` is made of, and what it reads beside the image.
OF_PARTS = ("vocab", "encoder", "image_tokens", "decoder")
_PARTS = "parts"

ROOT = {
    "task": str,
    "seed": int,
    "device": str,
    "imports": list[str],
    "resume": str | None,
    "init_from": str | None,
}

_LARGEST = 2**63 - 1  # what torch and numpy can count to

# Settings that say where and how fast, never what is computed.
_NOT_IN_HASH = ("tracking", "device", "imports", "resume")


def check(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config as plain typed data; `UserError` names a wrong key, option or type and what is allowed.

    The modules that the config names under `imports` are imported; those of users' installed packages that it uses are
    added to them, so that where such a package is missing the error says so.
    """
    import_modules(_checked("imports", config.get("imports"), list[str]))
    groups = groups_of(config)
    allowed = {*ROOT, *groups}
    for key in config:
        if key not in allowed:
            raise UserError(f"{key!r} is not part of the config; {describe_choices(str(key), allowed)}")
    plain = {key: _checked(key, config.get(key), annotation) for key, annotation in ROOT.items()}
    whole = _is_whole(config)
    for group in groups:
        plain[group] = (
            {"name": "none"} if whole and group in OF_PARTS else check_group(group, config.get(group))
        )
    used = installed_modules(
        lookup(group, plain[group]["name"]) for group in groups if not (whole and group in OF_PARTS)
    )
    plain["imports"] = list(dict.fromkeys([*plain["imports"], *used]))
    return absolute(plain)


def _is_whole(config: Mapping[str, Any]) -> bool:
    """Whether the captioner is not one of easycap's own parts, so that their groups are not used."""
    return (config.get("captioner") or {}).get("name", _PARTS) != _PARTS


def groups_of(config: Mapping[str, Any]) -> list[str]:
    """Return the groups of a config: `GROUPS`, and after them those of other text conditions that it names."""
    further = [str(key) for key in config if key not in ROOT and key not in GROUPS]
    return [*GROUPS, *sorted(set(further) & condition_groups())] if further else list(GROUPS)


def check_stored(config: DictConfig) -> dict[str, Any]:
    """Return `check` of a config as a run stored it, by this version or an earlier one."""
    return check(OmegaConf.create(fill_former_values(_plain(config))))


def check_stored_group(group: str, values: DictConfig) -> dict[str, Any]:
    """Return `check_group` of a group as a run stored it, by this version or an earlier one."""
    return check_group(group, OmegaConf.create(update_settings({group: _plain(values)})[group]))


def _plain(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def check_group(group: str, values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return one group's values, typed, with `name`; see `check`."""
    if not isinstance(values, Mapping) or "name" not in values:
        raise UserError(
            f"{group} must be one of its options, e.g. {group}={options(group)[0]}: a mapping with 'name'"
        )
    plain: Any = OmegaConf.to_container(values, resolve=True) if OmegaConf.is_config(values) else values
    schema = fields_of(group, plain["name"])
    for key in map(str, plain):
        if key != "name" and key not in schema:
            renamed = RENAMED_KEYS.get(group, {}).get(key)
            if renamed in schema:
                raise UserError(f"{group}.{key} was renamed to {group}.{renamed}")
            raise UserError(
                f"{group}.{key} does not exist for {group} {plain['name']!r}; {instead_of(group, key, schema)}"
            )
    missing = [key for key in schema if plain.get(key, MISSING) == MISSING]
    if missing:
        raise UserError(f"{group}.{missing[0]} has no value; set it, e.g. {group}.{missing[0]}=...")
    for key, names in RENAMED_VALUES.get(group, {}).items():
        if key in schema and (renamed := names.get(str(plain[key]))) is not None:
            raise UserError(f"{group}.{key}={plain[key]} was renamed to {group}.{key}={renamed}")
    checked = {key: _checked(f"{group}.{key}", plain[key], annotation) for key, annotation in schema.items()}
    return {"name": plain["name"], **checked}


def option_from_text(group: str, text: str, **root: Any) -> dict[str, Any]:
    """Return a checked group from "option" or "option,key=value,..."; `root` is what its YAML may refer to.

    Values may be lists; settings are separated by commas, spaces or both: "sample, top_p=0.8 may_repeat=[a, the]".
    """
    name, *settings = split_settings(text) or [""]
    if not has_option(group, name):
        choices = describe_choices(name, options(group))
        raise UserError(f"{group} {name!r} does not exist; {choices}{failures()}")
    values = option_values(group, name)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not key or not equals:
            raise UserError(f"{setting!r} in {text!r} must be key=value, e.g. {name},key=value")
        try:
            values[key] = OmegaConf.create(f"value: {value}").value
        except (YAMLError, OmegaConfBaseException):
            raise UserError(
                f"{setting!r} in {text!r} cannot be parsed; write lists as [a,b], and text with commas in quotes"
            ) from None
    return check_group(group, OmegaConf.create({**root, group: values})[group])


def split_settings(text: str) -> list[str]:
    """Split "option, key=value key = [a, b]" into its parts, but not inside brackets or quotes nor around "="."""
    text = re.sub(r"""\s*(=)\s*|('[^']*'|"[^"]*"|\[[^]]*\]|\{[^}]*\})""", r"\1\2", text)
    parts: list[str] = []
    depth, quote, start = 0, "", True
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        depth += (not quote) * ((character in "[{") - (character in "]}"))
        if not quote and depth == 0 and (character == "," or character.isspace()):
            start = True
        elif start:
            parts, start = [*parts, character], False
        else:
            parts[-1] += character
    return parts


def fields_of(group: str, name: str) -> dict[str, Any]:
    """Return {field: type} that the YAML of option `name` must give."""
    return settings_of(lookup(group, name))


def config_hash(config: dict[str, Any]) -> str:
    """Return 10 hex digits of what is computed: without locations of data, tracking, device, workers and the like."""
    relevant = {key: value for key, value in config.items() if key not in _NOT_IN_HASH}
    how_only = ("workers", "threads", "max_hours", "checkpoint_every_steps", "keep_checkpoints", "shard")
    relevant["trainer"] = {k: v for k, v in config["trainer"].items() if k not in how_only}
    # With auto, caching depends on the disk.
    relevant["trainer"]["cache_features"] = config["trainer"]["cache_features"] is True
    relevant["data"] = {k: v for k, v in without_locations("data", config["data"]).items() if k != "workers"}
    captioner = config.get("captioner") or {}
    for key in ("model", "word_vectors"):
        if captioner.get(key) and Path(captioner[key]).is_absolute():
            captioner = captioner | {key: Path(captioner[key]).name}
    relevant["captioner"] = captioner
    if not _is_whole(config) and captioner.get("word_vectors") is None:
        del relevant["captioner"]
    relevant["encoder"] = without_locations("encoder", config["encoder"])
    if config["decoder"].get("pretrained") is not None:  # the weights' own, whether written out or not
        relevant["decoder"] = config["decoder"] | {"architecture": None}
    # A setting that a later version added, at the value that changes nothing, must not change the hash.
    text = json.dumps(drop_former_values(to_plain(relevant)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def to_plain(value: Any) -> Any:
    """Return `value` with enums as their names and tuples as lists: what YAML and JSON can hold."""
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    return str(value) if isinstance(value, Path) else value


def to_yaml(config: dict[str, Any]) -> str:
    """Return a checked config as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(to_plain(config)))


def _checked(key: str, value: Any, annotation: Any) -> Any:
    """Return `value` as `annotation`, converted as OmegaConf converts, tuples restored."""
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    known = annotation, type(plain), repr(plain)
    if known not in _CHECKED:
        _CHECKED[known] = _converted(key, value, annotation)
    return copy.deepcopy(_CHECKED[known])


# Of a sweep's runs nearly all settings are the same, and OmegaConf takes its time.
_CHECKED: dict[tuple[Any, type, str], Any] = {}


def _converted(key: str, value: Any, annotation: Any) -> Any:
    try:
        holder = OmegaConf.structured(
            make_dataclass("Field", [("value", annotation, field(default=MISSING))])
        )
    except OmegaConfBaseException:
        raise UserError(
            f"{key}: settings cannot be of type {annotation}, which YAML does not support"
        ) from None
    try:
        holder.value = value
    except (OmegaConfBaseException, ValueError, TypeError):
        raise UserError(f"{key}={shown_value(value)} must be {described_type(annotation)}") from None
    if OmegaConf.is_missing(holder, "value"):
        raise UserError(f"{key} has no value; set it, e.g. {key}=...")
    plain = OmegaConf.to_container(holder, enum_to_str=False)
    assert isinstance(plain, dict)
    result = plain["value"]
    if isinstance(result, int) and abs(result) > _LARGEST:
        raise UserError(f"{key}={result} is too large; the largest whole number allowed is {_LARGEST}")
    if not _is_finite(result):
        raise UserError(f"{key}={shown_value(value)} must be {described_type(annotation)}, and finite")
    if has_fixed_length(annotation) and len(result) != len(typing.get_args(annotation)):
        raise UserError(f"{key}={shown_value(value)} must be {described_type(annotation)}")
    return tuple(result) if isinstance(result, list) and "tuple" in str(annotation) else result


def _is_finite(value: Any) -> bool:
    """Whether no number of a plain value is nan or infinite."""
    if isinstance(value, (dict, list)):
        return all(map(_is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)
