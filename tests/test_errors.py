"""What users did wrong has a class of its own; everything else is reported as unexpected."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

import easycap
from easycap import cli
from easycap.errors import UserError, while_reading

FILES = sorted(Path(easycap.__file__).parent.rglob("*.py"))
# Where the protocol of Python or of a library asks for a bare ValueError.
BARE: set[str] = set()


def raised_names(path: Path) -> set[str]:
    """The names of exception classes that a file raises."""
    raises = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Raise)]
    calls = [n.exc.func for n in raises if isinstance(n.exc, ast.Call)]
    return {call.id for call in calls if isinstance(call, ast.Name)}


def test_no_bare_value_error_is_raised() -> None:
    assert {path.name for path in FILES if "ValueError" in raised_names(path)} == BARE


def run(error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> str:
    def fail(argv: list[str]) -> int:
        raise error

    monkeypatch.setattr("easycap.commands.runs.main", fail)
    assert cli.main(["runs"]) == 1
    return capsys.readouterr().err


def test_a_user_error_is_shown_as_it_is(monkeypatch, capsys) -> None:
    assert run(UserError("seed=-1 must not be negative"), monkeypatch, capsys) == (
        "easycap: seed=-1 must not be negative\n"
    )


def test_a_library_s_value_error_is_unexpected(monkeypatch, capsys) -> None:
    shown = run(ValueError("Unknown format code 'd'"), monkeypatch, capsys)
    assert shown.startswith("easycap: unexpected ValueError: Unknown format code 'd'")
    assert "--debug" in shown


def test_an_unexpected_error_names_what_was_read(monkeypatch, capsys) -> None:
    with pytest.raises(TypeError) as caught, while_reading("captions.json, image 3"):
        sorted(["a", 1])
    shown = run(caught.value, monkeypatch, capsys)
    assert shown.startswith("easycap: unexpected TypeError, while reading captions.json, image 3: ")


@pytest.mark.parametrize("error", [UserError("no"), FileNotFoundError(2, "No such file", "x")])
def test_errors_that_say_it_themselves_get_no_note(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, while_reading("x.json"):
        raise error
    assert not getattr(caught.value, "__notes__", ())


# Rooms that Python users and several commands call: a flag of one command means nothing there.
SHARED_ROOMS = (
    "conditioning",
    "data",
    "evaluation",
    "generation",
    "models",
    "objectives",
    "training",
    "vocab",
)


def test_errors_of_shared_rooms_name_no_flags() -> None:
    package = Path(easycap.__file__).parent
    named = []
    for path in FILES:
        if path.relative_to(package).parts[0] not in SHARED_ROOMS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise):
                texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
                named += [text for text in texts if re.search(r"(?<!\w)--[a-z]", str(text))]
    assert named == []


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "rich.table", None)  # as after pip install --no-deps
    monkeypatch.delitem(sys.modules, "easycap.report.rich_tables", raising=False)
    assert cli.main(["runs"]) == 1
    assert "the package rich, which is not installed: pip install easycap" in capsys.readouterr().err
