"""Users' own components: from installed packages, and from modules that a config names.

A package is found by an entry point of the group `easycap.components`, whose value is the module that registers its
components when it is imported (`easycap.register`). `imports: [my_parts]` in a config names such a module without one.
Options and recipes of a package may lie in its folder `conf`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from easycap.errors import UserError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from types import ModuleType

ENTRY_POINTS = "easycap.components"

_loaded: set[str] = set()  # entry points
_failures: list[str] = []
_imported: dict[str, None] = {}  # modules that configs name, in this order


@cache
def installed() -> tuple[EntryPoint, ...]:
    """Return the entry points of users' installed packages; nothing of them is imported."""
    from importlib.metadata import entry_points  # `easycap --help` does not need it

    return tuple(entry_points(group=ENTRY_POINTS))


def load_installed() -> None:
    """Import all installed packages with components, once; `failures` says what went wrong."""
    for entry in installed():
        if entry.value in _loaded:
            continue
        _loaded.add(entry.value)  # before it is imported: it may look components up
        try:
            _refuse_bare_folder(importlib.import_module(entry.module))
            entry.load()
        except (Exception, SystemExit) as error:
            package = entry.dist.name if entry.dist else entry.name
            _failures.append(f"package {package} could not be loaded ({entry.value}: {_reason(error)})")


def installed_modules(components: Iterable[object]) -> list[str]:
    """Return the modules that register some components, as far as these are of installed packages."""
    packages = {component.__module__.partition(".")[0] for component in components}
    return list(dict.fromkeys(e.module for e in installed() if e.module.partition(".")[0] in packages))


def packages_without_conf() -> list[str]:
    """Return the installed packages whose options only importing them would tell: they have no folder `conf`."""
    return [top for entry in installed() if _conf_dir(top := entry.module.partition(".")[0]) is None]


def failures() -> str:
    """Return "; package NAME could not be loaded (...)" to end an error message with, or nothing."""
    return "".join(f"; {failure}" for failure in _failures)


def import_modules(names: Iterable[str]) -> None:
    """Import the modules that a config names; the current folder is searched last.

    Raises `UserError` naming the one that cannot be imported, and why.
    """
    for name in names:
        if name in _imported:
            continue
        if not all(part.isidentifier() for part in name.split(".")) or name.endswith(".py"):
            raise UserError(
                f"imports: {name!r} must be a module name, e.g. my_parts for the file my_parts.py"
            )
        if not {"", os.getcwd()} & set(sys.path):
            sys.path.append(os.getcwd())  # as `python -m easycap` has it
        try:
            _refuse_bare_folder(importlib.import_module(name))
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise UserError(f"imports: {name} could not be imported: {_reason(error)}") from error
            raise UserError(
                f"imports: no module {error.name} in installed packages, on PYTHONPATH "
                "or in the current folder"
            ) from None
        except (Exception, SystemExit) as error:
            raise UserError(f"imports: {name} could not be imported: {_reason(error)}") from error
        _imported[name] = None


def conf_dirs() -> list[Path]:
    """Return the existing folders `conf` of users' packages: those that configs name, then installed ones."""
    modules = [*_imported, *(entry.module for entry in installed())]
    tops = dict.fromkeys(module.partition(".")[0] for module in modules)
    return [folder for top in tops if (folder := _conf_dir(top)) is not None]


@cache
def _conf_dir(package: str) -> Path | None:
    try:
        found = importlib.util.find_spec(package)  # imports nothing, as it is not a submodule
    except (ImportError, ValueError):
        return None
    for location in (found and found.submodule_search_locations) or ():
        if (folder := Path(location).absolute() / "conf").is_dir():
            return folder
    return None


def _refuse_bare_folder(module: ModuleType) -> None:
    """Python imports any folder as a package without content, e.g. that of a project, around the package itself."""
    if module.__spec__ is not None and module.__spec__.origin is None:
        folder = next(iter(module.__path__))
        raise UserError(f"{folder} is a folder without __init__.py; is the package in a subfolder?")


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
