"""`easycap new KIND NAME`: write a package with a working component to edit."""

from __future__ import annotations

import argparse
import importlib.util
import keyword
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import NamedTuple

from easycap.config.options import has_option, options
from easycap.config.schema import GROUPS, ROOT
from easycap.errors import UserError
from easycap.metrics.scoring import text_metrics
from easycap.runs.find import shown
from easycap.utils.paths import expanded

_SKELETONS = Path(__file__).parent / "skeletons"


class _Kind(NamedTuple):
    """A kind: its config `group` ("": its own; None: no config), what it is, and how to try it."""

    group: str | None
    what: str
    command: str


_KINDS = {
    "decoder": _Kind("decoder", "decoder", "easycap train decoder={name} trainer.max_steps=5 tracking=none"),
    "encoder": _Kind("encoder", "encoder", "easycap train encoder={name} trainer.max_steps=5 tracking=none"),
    "metric": _Kind(None, "metric", "easycap score captions.json references.json --metrics {name}"),
    "data": _Kind("data", "data source", "easycap data check data={name} data.root=DIR"),
    "objective": _Kind(
        "objective", "objective", "easycap train objective={name} trainer.max_steps=5 tracking=none"
    ),
    "condition": _Kind(
        "", "text condition", "easycap train {name}=strongest trainer.max_steps=5 tracking=none"
    ),
}


def main(argv: Sequence[str]) -> int:
    """Write a package and print the next steps; raises `UserError` before anything is written."""
    parser = argparse.ArgumentParser(
        prog="easycap new",
        description="Write a package with a working component and its test, for you to edit.",
    )
    parser.add_argument("kind", choices=_KINDS, metavar="KIND", help=", ".join(_KINDS))
    parser.add_argument("name", metavar="NAME", help="name of the package and of the option, e.g. my_gru")
    parser.add_argument("--to", type=Path, metavar="DIR", help="folder for the package (default: NAME)")
    args = parser.parse_args(argv)
    kind, name = _KINDS[args.kind], args.name
    folder = expanded(args.to or name)
    _check(kind, name, folder)
    files = _files(args.kind, kind, name)
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    place = shown(folder.absolute())
    article = "an" if kind.what[0] in "aeio" else "a"
    print("\n".join([f"{article} {kind.what} in {place}:", *(f"  {path}" for path in files), ""]))
    # A bare name would be that of a package for pip.
    path = place if folder.absolute() == expanded(place) else f"./{place}"
    print("Change it as you like. It is found once the package is installed:")
    for command in (f"pip install -e {path}", f"pytest {place}", kind.command.format(name=name)):
        print(f"  {command}")
    return 0


def _check(kind: _Kind, name: str, folder: Path) -> None:
    """Raise `UserError` for an invalid or taken name, and for a folder that is not empty."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(f"{name!r} is not a valid module name: use a-z, 0-9 and '_', e.g. my_parts")
    if name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        raise UserError(f"a module named {name} already exists: choose another name")
    if kind.group == "" and (name in (*ROOT, *GROUPS, "sweep", "launcher", "hydra") or options(name)):
        raise UserError(f"a setting named {name} already exists: choose another name")
    if kind.group and has_option(kind.group, name):
        raise UserError(f"an option {kind.group}={name} already exists: choose another name")
    if kind.group is None and name in text_metrics():
        raise UserError(f"a metric named {name} already exists: choose another name")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{shown(folder)} exists and is not empty: choose another folder with --to DIR")


def _files(module: str, kind: _Kind, name: str) -> dict[str, str]:
    """The files of the package, {path: text}."""
    words = {"name": name, "Name": "".join(map(str.capitalize, name.split("_")))}
    words |= {"kind": kind.what, "module": module}

    def filled(skeleton: str) -> str:
        return Template((_SKELETONS / skeleton).read_text(encoding="utf-8")).substitute(words)

    files = {
        "pyproject.toml": filled("pyproject.toml.txt"),
        f"src/{name}/__init__.py": filled("init.py.txt"),
        f"src/{name}/{module}.py": filled(f"{module}/module.py.txt"),
    }
    if kind.group is not None:
        option = "strongest" if not kind.group else name
        files[f"src/{name}/conf/{kind.group or name}/{option}.yaml"] = filled(f"{module}/option.yaml.txt")
    return files | {f"tests/test_{name}.py": filled(f"{module}/test.py.txt")}
