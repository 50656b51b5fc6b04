"""Another set than a run's own, as the overrides `data=NAME data.KEY=VALUE` of a command that evaluates the run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from easycap.config.compose import compose
from easycap.config.data_locations import LOCATIONS
from easycap.config.schema import check
from easycap.errors import UserError

_WORD = re.compile(r"\+{0,2}(data(?:\.[\w.]+)?)=(.*)", re.DOTALL)
# Options that read anybody's data: their name says nothing about the set, the name of its folder does.
_ANYBODYS = ("folder", "tables", "huggingface", "webdataset")
_FOLDERS = ("images", "root", "path", "captions")
# Characters that are kept in the names of a run's files.
_UNUSUAL = re.compile(r"[^\w.-]+")


class OtherSetConfig(NamedTuple):
    """The checked group `data` of another set, and the name of that set."""

    name: str
    data: dict[str, Any]


def split_other_set(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into those that are not overrides of data, and those that are if data=NAME is one of them.

    Without data=NAME there are none: data.root=DIR and the like then say where the run's own data lies. Raises
    `UserError` for other settings of data then.
    """
    found = {word: match for word in argv if (match := _WORD.fullmatch(word))}
    if not any(match[1] == "data" for match in found.values()):
        for word, match in found.items():
            if match[1] not in LOCATIONS:
                moved = ", ".join(name for name in LOCATIONS if name.startswith("data."))
                raise UserError(
                    f"{word} without data=NAME: {moved} say where the run's own data lies now, and another set is "
                    "named first, e.g. data=folder data.images=DIR"
                )
        return list(argv), []
    for word, match in found.items():
        if match[1] == "data" and "," in match[2]:
            raise UserError(f"{word} names several sets: evaluate one at a time")
    return [word for word in argv if word not in found], list(found)


def other_set_config(overrides: Sequence[str], name: str | None = None) -> OtherSetConfig:
    """Return the set of overrides; `name` replaces its own: the option's, or its folder's for a user's own images.

    Raises `UserError` as training on it would.
    """
    composed = compose(overrides)
    data = check(composed.config)["data"]
    if name is None:
        name = composed.choices["data"]
        folder = next((data[key] for key in _FOLDERS if data.get(key)), None)
        if name in _ANYBODYS and folder is not None:
            name = Path(folder).stem or name
        name = _UNUSUAL.sub("-", name)
    elif not name or _UNUSUAL.search(name):
        raise UserError(
            f"the name {name!r} may only contain letters, digits, '-', '_' and '.', e.g. my_photos"
        )
    return OtherSetConfig(name, data)
