"""Configs, checked before any work: every group against the constructor of the component it names.

A component states its fields once, as the keyword-only typed arguments of its constructor; the YAML of an option
states their values once. What `build.py` supplies at run time (SUPPLIED) is in neither. This file reads signatures
from the registry and knows no component.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import typing
from dataclasses import field, make_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from easycap.paths import config_dir
from easycap.registry import describe_choices, lookup, parameters

GROUPS = (
    "data",
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

# Arguments that build.py computes; no YAML may set them.
SUPPLIED = frozenset(
    {
        "captions",  # vocab: the training captions
        "pixels",  # data: whether the model sees them; if not, files of images may be missing
        "vocab_size",
        "num_tags",  # tagger: the vocabulary without pad, bos and eos
        "pad_id",
        "bos_id",
        "eos_id",
        "unk_id",
        "encode",  # decoding: the vocabulary's, text -> ids
        "pieces",  # decoder: the vocabulary in the ids of a language model's own
        "channels",  # image_tokens, decoder: the encoder's C
        "source_grid",  # image_tokens: the encoder's (h, w)
        "memory_dim",  # image_tokens: the decoder's D
        "draft_data",  # draft
        "open_neighbours",  # draft: () -> Neighbours
        "tag_data",  # tags
        "with_tags",  # data: whether the images' own tags are of use
        "total_steps",  # schedule
        "make_rewards",  # objective: (weights, eos) -> Rewards of captions of training images
        "examples",  # validation, tag_vocab: those of its split
        "make_batches",
        "objective",
        "generator",
        "refinement",
        "vocabulary",
        "score",
        "ranks",
        "folder",  # tracking: the run's folder
        "config",  # tracking: the resolved config as plain data
    }
)

_ROOT = {"task": str, "seed": int, "device": str, "resume": str | None, "init_from": str | None}

# Groups that configs stored by earlier versions lack, and what those did.
_ADDED = {
    "task": "caption",
    "tags": {"name": "none"},
    "draft": {"name": "none"},
    "refine": {"name": "default", "rounds": 0},
    "tagger": {"name": "none"},
    "tag_vocab": {"name": "captions", "size": 500, "min_count": 5},
}

# The same for data, where the other names are settings.
_SUPPLIED_TO_DATA = frozenset({"pixels", "with_tags"})

# Settings that say where and how fast, never what is computed.
_NOT_IN_HASH = ("tracking", "device", "resume")


def check(config: DictConfig) -> dict[str, Any]:
    """Return the config as plain typed data; `ValueError` names a wrong key, option or type and what is allowed."""
    allowed = {*_ROOT, *GROUPS}
    for key in config:
        if key not in allowed:
            raise ValueError(f"{key!r} is no part of the config; {describe_choices(str(key), allowed)}")
    plain = {key: _checked(key, config.get(key), kind) for key, kind in _ROOT.items()}
    for group in GROUPS:
        plain[group] = check_group(group, config.get(group))
    return plain


def check_stored(config: DictConfig) -> dict[str, Any]:
    """Return `check` of a config as a run stored it, by this version or an earlier one."""
    return check(OmegaConf.merge(_ADDED, config))


def check_group(group: str, values: DictConfig | None) -> dict[str, Any]:
    """Return one group's values, typed, with `name`; see `check`."""
    if not isinstance(values, DictConfig) or "name" not in values:
        raise ValueError(
            f"{group} must be one of its options, e.g. {group}={options(group)[0]}: a mapping with 'name'"
        )
    schema = fields_of(group, values["name"])
    for key in values:
        if key != "name" and key not in schema:
            raise ValueError(
                f"{group}.{key} does not exist for {group} {values['name']!r}; {describe_choices(str(key), schema)}"
            )
    missing = [key for key in schema if key not in values or OmegaConf.is_missing(values, key)]
    if missing:
        raise ValueError(f"{group}.{missing[0]} has no value; set it, e.g. {group}.{missing[0]}=...")
    checked = {key: _checked(f"{group}.{key}", values[key], kind) for key, kind in schema.items()}
    return {"name": values["name"], **checked}


def option_from_text(group: str, text: str, **root: Any) -> dict[str, Any]:
    """Return a checked group from "option" or "option,key=value,..."; `root` is what its YAML may refer to."""
    name, *settings = text.split(",")
    if name not in options(group):
        raise ValueError(f"{group} {name!r} does not exist; {describe_choices(name, options(group))}")
    values = _option(group, name)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"{setting!r} in {text!r} must be key=value, e.g. {name},key=value")
        values[key] = OmegaConf.create(f"value: {value}").value
    return check_group(group, OmegaConf.create({**root, group: values})[group])


def _option(group: str, name: str) -> DictConfig:
    """What the YAML of an option says, with those of the same group that it changes."""
    values = OmegaConf.load(config_dir() / group / f"{name}.yaml")
    bases = [_option(group, base) for base in values.pop("defaults", [])]
    return OmegaConf.merge(*bases, values)


def options(group: str) -> list[str]:
    """Return the options of a config group, as the YAML files on disk name them."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def fields_of(group: str, name: str) -> dict[str, Any]:
    """Return {field: type} that the YAML of option `name` must give: the constructor's arguments less what is supplied.

    Data comes first of all: next to nothing is supplied to it, and data.captions is a setting.
    """
    supplied = SUPPLIED if group != "data" else _SUPPLIED_TO_DATA
    return {key: kind for key, kind in parameters(lookup(group, name)).items() if key not in supplied}


def config_hash(config: dict[str, Any]) -> str:
    """Return 10 hex digits of what is computed: paths, tracking, device and workers left out."""
    relevant = {key: value for key, value in config.items() if key not in _NOT_IN_HASH}
    how_only = ("workers", "max_hours", "checkpoint_every_steps")
    relevant["trainer"] = {k: v for k, v in config["trainer"].items() if k not in how_only}
    relevant["data"] = {k: v for k, v in config["data"].items() if k not in ("root", "cache", "workers")}
    if config["decoder"].get("pretrained") is not None:  # the weights' own, whether written out or not
        relevant["decoder"] = config["decoder"] | {"architecture": None}
    text = json.dumps(to_plain(relevant), sort_keys=True)
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


def _checked(key: str, value: Any, kind: Any) -> Any:
    """Return `value` as `kind`, converted as OmegaConf converts, tuples restored."""
    holder = OmegaConf.structured(make_dataclass("Field", [("value", kind, field(default=MISSING))]))
    try:
        holder.value = value
    except (OmegaConfBaseException, ValueError, TypeError):
        raise ValueError(f"{key}={_shown(value)} must be {_describe(kind)}") from None
    if OmegaConf.is_missing(holder, "value"):
        raise ValueError(f"{key} has no value; set it, e.g. {key}=...")
    result = OmegaConf.to_container(holder, enum_to_str=False)["value"]
    return tuple(result) if isinstance(result, list) and "tuple" in str(kind) else result


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return str(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)


def _describe(kind: Any) -> str:
    if inspect.isclass(kind) and issubclass(kind, Enum):
        return "one of " + ", ".join(member.name for member in kind)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    members = typing.get_args(kind) if not isinstance(kind, type) else ()
    if kind in names:
        return names[kind]
    if type(None) in members:
        return " or ".join(_describe(member) for member in members)
    return str(kind)
