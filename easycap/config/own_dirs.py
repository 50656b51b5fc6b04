"""Folders of a user's own options, recipes and sweeps: `--config-dir DIR` of a command line, or `hydra.searchpath`."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path

from easycap.errors import UserError
from easycap.utils.paths import config_dir, expanded

_FLAGS = ("--config-dir", "-cd")
_SEARCH_PATH = re.compile(r"\+{0,2}hydra\.searchpath=(.*)", re.DOTALL)


def use_config_dirs(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Search the folders that `--config-dir DIR` and `hydra.searchpath=[DIR,...]` name, here and in processes started
    from now on; return the other arguments, and the same folders as arguments.

    Raises `UserError` for what is not a folder, and for an option there that easycap's own of the same name would hide.
    """
    rest, named = [], []
    words = iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag in _FLAGS:
            if not equals and (value := next(words, "")) == "":
                raise UserError(f"{flag} needs a folder, e.g. {flag} my_conf")
            named.append(_folder(value, f"--config-dir {value}"))
        elif match := _SEARCH_PATH.fullmatch(word):
            places = [place.strip(" '\"") for place in match[1].strip("[]").split(",")]
            named += [_folder(place, f"hydra.searchpath: {place}") for place in places if place]
        else:
            rest.append(word)
    folders = list(dict.fromkeys(named))
    for folder in folders:
        _refuse_hidden(folder)
    if folders:
        os.environ["EASYCAP_CONFIG_DIR"] = os.pathsep.join(map(str, folders))
    return rest, [word for folder in folders for word in ("--config-dir", str(folder))]


def _folder(place: str, named: str) -> Path:
    scheme, _, rest = place.rpartition("://")
    if scheme == "pkg":
        folder = _folder_of_package(rest.replace("/", "."))
    elif scheme in ("", "file"):
        folder = expanded(rest).absolute()
    else:
        raise UserError(f"{named} must be a folder, file://FOLDER or pkg://PACKAGE")
    if folder is None or not folder.is_dir():
        raise UserError(f"{named} is not a folder")
    if os.pathsep in str(folder):
        raise UserError(f"{named}: the name of the folder must not have {os.pathsep!r}")
    return folder


def _folder_of_package(name: str) -> Path | None:
    package, _, below = name.partition(".")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    locations = (spec and spec.submodule_search_locations) or ()
    return next((Path(location, *below.split(".")) for location in locations), None)


def _refuse_hidden(folder: Path) -> None:
    for path in sorted(folder.glob("*/**/*.yaml")):
        ours = config_dir() / path.relative_to(folder)
        if ours.is_file() and ours.read_bytes() != path.read_bytes():
            raise UserError(
                f"{path} would be ignored: easycap has {ours.parent.name}={ours.stem} of its own; give the file "
                "another name"
            )
