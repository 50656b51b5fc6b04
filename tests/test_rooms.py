"""The direction of imports: a room imports only from rooms above it; light rooms never load torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import easycap

PACKAGE = Path(easycap.__file__).parent

# room -> the rooms it may import from, besides itself
FOUNDATION = {"types", "registry", "paths", "processes", "hub"}
ALLOWED = {
    "types": set(),
    "registry": set(),
    "paths": set(),
    "processes": set(),
    "shared": {"processes"},
    "hub": set(),
    "config": FOUNDATION,
    "vocab": FOUNDATION,
    "metrics": FOUNDATION,
    "data": FOUNDATION | {"vocab", "metrics"},
    "context": FOUNDATION | {"vocab", "metrics", "data"},
    "models": FOUNDATION,
    "generation": FOUNDATION,
    "objectives": FOUNDATION | {"metrics", "generation"},
    "tracking": FOUNDATION,
    "training": FOUNDATION | {"data", "models", "generation", "objectives"},
    "report": FOUNDATION | {"metrics"},
    "sweeping": FOUNDATION | {"report", "tracking"},
    "runs": FOUNDATION | {"report"},
    "scoring": FOUNDATION | {"metrics", "data", "report"},
    "paired": FOUNDATION | {"metrics", "report", "runs", "scoring"},
    "table": FOUNDATION | {"runs", "report"},
    "compare": FOUNDATION | {"paired", "report", "runs"},
}
# Entry points may import any room; nothing imports them but each other.
ENTRY_POINTS = {
    "beside",
    "experiment",
    "tagging",
    "predictions",
    "rehearsal",
    "retrieval",
    "attention",
    "build",
    "data_command",
    "train",
    "estimate",
    "sweep",
    "sweep_plan",
    "evaluate",
    "caption",
    "launch",
    "cli",
}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "easycap"


def imports_of(path: Path) -> set[str]:
    """The rooms of easycap that a file imports, wherever in the file; imports for type checkers do not count."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            rooms |= {room_of(alias.name) for alias in node.names if alias.name.startswith("easycap")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "easycap":
            names = [f"easycap.{a.name}" for a in node.names] if node.module == "easycap" else [node.module]
            rooms |= {room_of(name) for name in names}
    return rooms - {"easycap", "__version__"}


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_rooms_above_it(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ENTRY_POINTS or room == "__init__":
        return
    assert room in ALLOWED, f"{room} is a new room: say in this test what it may import"
    assert imports_of(path) - {room} <= ALLOWED[room]


def test_every_room_is_there() -> None:
    found = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert set(ALLOWED) | ENTRY_POINTS <= found | {"__init__"}


@pytest.mark.parametrize(
    "module",
    [
        f"easycap.{name}"
        for name in ("cli", "compare", "metrics", "paired", "report", "runs", "scoring", "table")
    ],
)
def test_light_modules_do_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_only_build_looks_components_up() -> None:
    """Looking up by name elsewhere would be a second way from config to objects."""
    allowed = {"registry.py", "build.py", "config.py", "metrics/scoring.py"}
    for path in FILES:
        name = str(path.relative_to(PACKAGE))
        if "lookup(" in path.read_text(encoding="utf-8") and not name.startswith("metrics/"):
            assert name in allowed, name
