"""`easycap new`: the packages it writes are sound, their tests pass, and names that cannot be are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from easycap.cli import main
from easycap.commands.new import _KINDS, _SKELETONS

KINDS = tuple(_KINDS)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One package of each kind, in a folder of its own."""
    folder = tmp_path_factory.mktemp("packages")
    for kind in KINDS:
        assert main(["new", kind, f"my_{kind}", "--to", str(folder / f"my_{kind}")]) == 0
    return folder


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_every_skeleton_is_a_kind() -> None:
    assert {path.name for path in _SKELETONS.iterdir() if path.is_dir()} == set(KINDS)


def test_the_packages_are_formatted_and_without_leftovers(packages: Path) -> None:
    options = ["--isolated", "--no-cache", "--line-length", "110"]
    for words in (
        ["format", "--check", *options],
        ["check", "--select", "E4,E7,E9,F,B,UP,SIM,ARG001", *options],
    ):
        done = run(packages, "ruff", *words, ".")
        assert done.returncode == 0, done.stdout
    for path in packages.rglob("*.*"):
        if path.is_file() and path.suffix in (".py", ".toml", ".yaml"):
            assert "$" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "metric"])
def test_the_yaml_names_what_is_registered(packages: Path, kind: str) -> None:
    package = packages / f"my_{kind}" / "src" / f"my_{kind}"
    (option,) = package.glob("conf/*/*.yaml")
    name, group = yaml.safe_load(option.read_text())["name"], option.parent.name
    assert f'("{group}", "{name}")' in (package / f"{kind}.py").read_text()


def test_the_tests_of_all_packages_pass_but_for_their_training(packages: Path) -> None:
    every = [f"my_{kind}/tests" for kind in KINDS]
    places = os.pathsep.join(str(packages / f"my_{kind}" / "src") for kind in KINDS)
    words = ["-q", "-p", "no:cacheprovider", "-o", f"pythonpath={places.replace(os.pathsep, ' ')}"]
    done = run(packages, "pytest", *words, "-k", "not trains and not captioners", *every)
    assert done.returncode == 0, done.stdout
    assert "13 passed" in done.stdout and "5 deselected" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_tests_of_a_package_pass(packages: Path, kind: str) -> None:
    done = run(packages, "pytest", "-q", "-p", "no:cacheprovider", f"my_{kind}")
    assert done.returncode == 0, done.stdout


def test_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "encoder", "my_patches"]) == 0
    printed = capsys.readouterr().out
    assert "an encoder in my_patches:" in printed and "pip install -e ./my_patches\n" in printed
    files = [line.strip() for line in printed.partition("\n\n")[0].splitlines()[1:]]
    found = [
        path.relative_to("my_patches").as_posix() for path in Path("my_patches").rglob("*") if path.is_file()
    ]
    assert sorted(files) == sorted(found) and len(files) == 5


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("decoder", "lstm", "an option decoder=lstm already exists"),
        ("metric", "bleu", "a metric named bleu already exists"),
        ("condition", "tags", "a setting named tags already exists"),
        ("condition", "seed", "a setting named seed already exists"),
        ("data", "json", "a module named json already exists"),
        ("decoder", "torch", "a module named torch already exists"),
        ("encoder", "My-Net", "'My-Net' is not a valid module name"),
        ("encoder", "class", "'class' is not a valid module name"),
        ("encoder", "full", "full exists and is not empty: choose another folder with --to DIR"),
    ],
)
def test_names_that_cannot_be(
    kind: str, name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full", "file").touch()
    before = sorted(tmp_path.rglob("*"))
    assert main(["new", kind, name]) == 1
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
