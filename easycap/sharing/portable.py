"""The parts of a run's records that are portable: no paths, trackers or hosts of the machine it was trained on."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from easycap.runs.find import CONFIG
from easycap.utils.shell import joined

# Parts of result.json that a model card is made of.
_RESULT = ("scores", "baselines", "objective", "seed", "commands", "imported")
_ENVIRONMENT = ("easycap", "python", "torch", "cpu", "gpu", "ranks")
# A path within other text: after the beginning or what separates values, not within a name, as in user/model.
_PATH = re.compile(r"(?<![\w.:/~-])(?:~[\w.-]*|[A-Za-z]:(?=[/\\]))?[/\\][^\s,;'\"()\[\]{}|]*")


def portable_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plain config with the names of files alone, and without what it was resumed from and tracked with."""
    return portable(dict(config)) | {"device": "auto", "resume": None, "tracking": {"name": "none"}}


def portable_result(result: Mapping[str, Any], *, state: str) -> dict[str, Any]:
    """Return what a model card needs of a run's result.json; `state` is the run's status."""
    found = {key: portable(result[key]) for key in _RESULT if key in result}
    if "commands" in result:
        found["commands"] = {label: portable_command(text) for label, text in result["commands"].items()}
    data = result.get("data") or {}
    environment = result.get("environment") or {}
    return found | {
        "state": state,
        "data": {key: data[key] for key in ("images", "dropped_count") if key in data},
        "cost": dict(result.get("cost") or {}),
        "environment": {key: environment[key] for key in _ENVIRONMENT if key in environment},
    }


def portable_command(command: str) -> str:
    """Return a command with the names of its files alone."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quote is not closed: it was not written by us
        return portable(command)
    return joined(map(_portable_word, words))


def _portable_word(word: str) -> str:
    key, equals, value = word.partition("=")
    return f"{key}={portable(value)}" if equals and "/" not in key else portable(word)


def portable(value: Any) -> Any:
    """Return a plain value in whose texts the last component stands for each absolute path."""
    if isinstance(value, Mapping):
        return {portable(key): portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [portable(item) for item in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("/", "~", "\\\\")) or re.match(r"[A-Za-z]:[/\\]", value):
        return _last(value)
    return _PATH.sub(lambda found: _last(found[0]), value)


def _last(path: str) -> str:
    windows = "\\" in path
    return (PureWindowsPath(path) if windows else PurePosixPath(path)).name or "."


def make_portable(folder: Path) -> None:
    """Rewrite what text conditions saved in `folder`: the configs of other models, and ids that are paths."""
    for file in folder.rglob("*.json"):
        stored = json.loads(file.read_text(encoding="utf-8"))
        if file.name == CONFIG:
            changed = portable(stored)
        elif isinstance(stored, dict) and isinstance(stored.get("ids"), list):
            changed = stored | {"ids": portable(stored["ids"])}
        else:
            continue
        file.write_text(json.dumps(changed, indent=1, ensure_ascii=False), encoding="utf-8")
