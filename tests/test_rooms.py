"""The direction of imports: a room imports only from rooms above it; light rooms never load torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import easycap

PACKAGE = Path(easycap.__file__).parent

# What every room may import.
BASE = {"errors", "types", "registry", "utils"}
# room -> the rooms it may import from, besides itself. A room comes after all that it imports.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "utils": {"errors"},
    "registry": {"errors", "utils"},
    "types": {"errors", "registry"},
    "runs": BASE,
    "config": BASE | {"runs"},
    "vocab": BASE,
    "metrics": BASE,
    "data": BASE | {"metrics"},
    "generation": BASE | {"metrics"},
    "models": BASE | {"config", "runs", "vocab"},
    "conditioning": BASE | {"config", "data", "metrics", "models", "runs", "vocab"},
    "objectives": BASE | {"generation", "metrics"},
    "training": BASE | {"data", "generation", "models", "runs"},
    "report": BASE | {"config", "metrics", "runs"},
    "evaluation": BASE
    | {"conditioning", "data", "generation", "metrics", "models", "report", "runs", "training"},
    "tasks": BASE
    | {"conditioning", "config", "data", "evaluation", "generation", "metrics", "models", "objectives"}
    | {"report", "runs", "training", "vocab"},
    "sharing": BASE | {"config", "data", "models", "report", "runs", "tasks"},
    "releases": BASE
    | {"config", "data", "evaluation", "metrics", "models", "report", "runs", "tasks", "training", "vocab"},
    "predict": BASE | {"config", "data", "generation", "runs", "sharing", "tasks"},
    "demo": BASE | {"config", "data", "evaluation", "predict", "report", "runs", "tasks"},
    "train": BASE
    | {"config", "evaluation", "metrics", "models", "report", "runs", "tasks", "training", "vocab"},
    "api": BASE | {"config", "metrics", "predict", "report", "runs", "tasks", "train"},
    "sweeps": BASE | {"config", "report", "runs", "tasks", "train", "training"},
    "components": {"conditioning", "data", "generation", "models", "objectives", "runs", "sweeps"}
    | {"training", "vocab"},
    "commands": BASE
    | {"api", "conditioning", "config", "data", "demo", "evaluation", "metrics", "models", "predict"}
    | {"releases", "report", "runs", "sharing", "sweeps", "tasks", "train", "training"},
    "cli": BASE | {"commands"},
    "__main__": {"cli"},
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
    if room == "__init__":
        return
    assert room in ALLOWED, f"{room} is a new room: say in this test what it may import"
    assert imports_of(path) - {room} <= ALLOWED[room]


def test_the_rooms_are_in_order_and_all_there() -> None:
    earlier: set[str] = set()
    for room, allowed in ALLOWED.items():
        assert allowed - {room} <= earlier | {room}, f"{room} may import what comes after it"
        earlier.add(room)
    found = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert set(ALLOWED) | {"__init__"} == found


def test_few_modules_lie_outside_the_rooms() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 10


# One name in several folders, because it is the same thing there; a file of commands/ is named after its command.
PARALLEL = {"lstm.py", "tags.py"}


def test_no_two_unrelated_files_have_one_name() -> None:
    folders: dict[str, list[str]] = {}
    for path in FILES:
        folder = path.parent.name
        if path.name != "__init__.py" and folder != "commands":
            folders.setdefault(path.name, []).append(folder)
    assert {name for name, where in folders.items() if len(where) > 1} == PARALLEL


@pytest.mark.parametrize(
    "module",
    [
        *("easycap.cli", "easycap.metrics", "easycap.report", "easycap.runs.find"),
        *(f"easycap.commands.{name}" for name in ("compare", "paired", "runs", "score", "table")),
    ],
)
def test_light_modules_do_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_only_config_looks_components_up() -> None:
    """Looking up by name elsewhere would be a second way from config to objects."""
    allowed = {"registry.py", "config/instantiate.py", "config/schema.py", "metrics/scoring.py"}
    for path in FILES:
        name = str(path.relative_to(PACKAGE))
        if "lookup(" in path.read_text(encoding="utf-8") and not name.startswith("metrics/"):
            assert name in allowed, name


def test_only_the_adapter_imports_transformers() -> None:
    """Its names change between versions; what is adapted to them is in five modules."""
    importers = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(module.split(".")[0] == "transformers" for module in modules):
                importers.add(path.name)
    adapters = {
        "transformers_adapter.py",
        "image_text_adapter.py",
        "fast_vlm_adapter.py",
        "attention_adapter.py",
    }
    assert importers == adapters | {"auto_tokenizer.py"}


def test_test_modules_import_no_other_test_module() -> None:
    """What tests share is in tests/helpers/, where one looks for it."""
    for path in Path(__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            shared = [module for module in modules if module.split(".")[-1].startswith("test_")]
            assert not shared, f"{path} imports {shared[0]}: move what they share to tests/helpers/"


def test_files_classes_and_functions_are_short() -> None:
    """A file has 300 lines at most, a class 250, a function 60; what has under 25 joins a neighbour."""
    long = set()
    for path in FILES:
        name, text = path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")
        if path.name not in {"__init__.py", "__main__.py"}:
            assert len(text.splitlines()) >= 25, name
        sizes = [(len(text.splitlines()), 300)]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                limit = 250 if isinstance(node, ast.ClassDef) else 60
                sizes.append(((node.end_lineno or 0) - node.lineno + 1, limit))
        if any(size > limit for size, limit in sizes):
            long.add(name)
    assert not long
