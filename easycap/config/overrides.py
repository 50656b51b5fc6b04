"""Command-line overrides as Hydra parses them, except that paths are plain text whatever characters they contain."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easycap.errors import UserError
from easycap.utils.paths import expanded

if TYPE_CHECKING:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Override

# Settings that name the user's files or folders: their values are plain text, not Hydra's grammar.
PATHS = frozenset(
    {
        "resume",
        "init_from",
        "data.root",
        "data.path",
        "data.images",
        "data.captions",
        "data.train",
        "data.val",
        "data.test",
        "data.image_list",
        "data.cache",
        "vocab.path",
        "encoder.weights",
        "encoder.features",
        "decoder.pretrained",
        "captioner.model",
        "captioner.word_vectors",
        "tags.run",
        "draft.run",
        "hydra.run.dir",
        "hydra.sweep.dir",
    }
)


def quoted(text: str) -> str:
    """Return `text` quoted for Hydra's grammar.

    Raises `UserError` for "${", which OmegaConf would interpolate.
    """
    if "${" in text:
        raise UserError(
            f"{text!r} contains '${{', which refers to another setting in configs; rename the folder, or link to it"
        )
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    text = re.sub(r"(\\+)$", r"\1\1", text)
    return f"'{text}'"


def override_text(key: str, value: Any) -> str:
    """Return the override that sets a Python value: None, bool, number, text, path, or a list or mapping of these.

    Raises `UserError` for other values.
    """
    if key in PATHS and value is not None and not isinstance(value, (list, tuple)):
        return f"{key}={value}"
    return f"{key}={value_text(key, value)}"


def value_text(key: str, value: Any) -> str:
    """Return `value` of the setting `key` in Hydra's grammar; raises `UserError` as `override_text` does."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, Path)):
        return quoted(str(value))
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{value_text(key, v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(value_text(key, one) for one in value)}]"
    raise UserError(f"{key}={value!r} must be a number, string, boolean, null, or a list or mapping of these")


def parse(overrides: Sequence[str], *, sweep: bool = False) -> list[Override]:
    """Return the parsed overrides; `UserError` names one that cannot be parsed.

    Paths are plain text; with `sweep`, commas separate several paths.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser  # here: captioning parses none
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    parsed = []
    for override in overrides:
        _refuse_removal(override)
        _refuse_empty(override)
        text = as_text(override, sweep=sweep)
        try:
            parsed.append(parser.parse_override(text))
        except HydraException:
            parsed.append(_parse_as_text(parser, override))
    return parsed


def _refuse_removal(override: str) -> None:
    """Raise `UserError` for ~GROUP and ~GROUP.FIELD: every setting has a value. An entry of a table may go."""
    name = override.removeprefix("~").partition("=")[0]
    if not override.startswith("~") or name.count(".") > 1 or name.startswith("hydra"):
        return
    instead = f"{name}=VALUE, often null" if "." in name else f"{name or 'GROUP'}=OPTION, often none"
    raise UserError(f"{override!r}: settings cannot be removed, only set: write {instead}")


def _refuse_empty(override: str) -> None:
    """Raise `UserError` for KEY= without a value, and for paths that are empty in quotes: "." is the current folder."""
    key, equals, value = override.partition("=")
    name, value = key.lstrip("+~"), value.strip()
    if equals and (not value or (name in PATHS and value in ("''", '""'))):
        raise UserError(f"{name}={value} is empty; is a shell variable unset?")


def _parse_as_text(parser: OverridesParser, override: str) -> Override:
    """Parse an override whose value is not in Hydra's grammar, e.g. text with umlauts, as plain text."""
    from hydra.errors import HydraException

    key, equals, value = override.partition("=")
    try:
        if not equals or value[:1] in "[{":
            raise HydraException
        return parser.parse_override(f"{key}={quoted(value)}")
    except HydraException:
        raise UserError(
            f"{override!r} cannot be parsed as GROUP=OPTION or GROUP.FIELD=VALUE; write lists as [a,b] and mappings as "
            "{a: 1}, quoted for the shell"
        ) from None


def as_text(override: str, *, sweep: bool = False) -> str:
    """Return an override of a path with "~" expanded and the value quoted for Hydra; others unchanged."""
    key, equals, value = override.partition("=")
    name = key.lstrip("+")
    if not equals or name not in PATHS or value == "null" or _is_quoted(value) or "${" in value:
        return override
    one = not sweep or "," not in value or expanded(value).exists()
    paths = [value] if one else value.split(",")
    if "" in paths:
        raise UserError(f"{override}: one of the paths is empty; is a shell variable unset?")
    return f"{key}=" + ",".join(map(_quoted_path, paths))


def _quoted_path(text: str) -> str:
    if text == "null" or _is_quoted(text):
        return text
    return quoted(str(expanded(text)) if text.startswith("~") else text)


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
