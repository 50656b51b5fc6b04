"""How much easycap installs: the core, and what each extra adds, without and with torch.

    python experiments/speed/installed_size.py

Sums the files of each distribution of this environment, and of all that it requires, as their RECORD lists them;
compiled bytecode counts where pip compiled it. What another row has already counts once; torch with CUDA's
libraries counts apart, as its build decides its size.
"""

from __future__ import annotations

import argparse
import configparser
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, files, requires
from pathlib import Path

from measure import markdown
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_SETUP = Path(__file__).parents[2] / "setup.cfg"
# Extras until they became such: `--before` counts them with the core.
_ONCE_REQUIRED = ("wandb", "meteor", "tags", "hdf5")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", action="store_true", help="the core as it was with four extras in it")
    options = parser.parse_args()
    config = configparser.ConfigParser()
    config.read(_SETUP)
    extras = {name: lines for name, lines in config["options.extras_require"].items() if name != "dev"}
    every = [line for lines in extras.values() for line in lines.split() if not line.startswith("easycap[")]
    core = config["options"]["install_requires"].split()
    if options.before:
        core += [line for name in _ONCE_REQUIRED for line in extras[name].split()]
    torch = closure(["torch"])
    small = closure(core) - torch
    rows = {"easycap": small}
    rows |= {
        f"easycap[{name}] adds": closure(lines.split()) - torch - small
        for name, lines in extras.items()
        if name != "all"
    }
    rows |= {"easycap[all]": closure([*core, *every]) - torch, "torch, with what it requires": torch}
    table = [
        {"": name, "distributions": str(len(found)), "MB": f"{megabytes(found):.0f}"}
        for name, found in rows.items()
    ]
    print(markdown(table))


def closure(lines: Iterable[str]) -> set[str]:
    """Return the names of the installed distributions that requirements ask for, and all that these ask for."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(line) for line in lines]
    while waiting:
        one = waiting.pop()
        for extra in ("", *one.extras):
            key = (canonicalize_name(one.name), extra)
            if key not in found:
                found.add(key)
                waiting += required_by(*key)
    return {name for name, _ in found}


def required_by(name: str, extra: str) -> Iterator[Requirement]:
    try:
        lines = requires(name) or []
    except PackageNotFoundError:
        raise SystemExit(f"{name} is not installed: pip install -e '.[dev]'") from None
    for line in lines:
        one = Requirement(line)
        if one.marker is None or one.marker.evaluate({"extra": extra}):
            yield one


def megabytes(names: Iterable[str]) -> float:
    return sum(size(path) for name in names for path in files(name) or []) / 1e6


def size(path) -> int:
    try:
        return path.locate().stat().st_size
    except OSError:
        return 0


if __name__ == "__main__":
    main()
