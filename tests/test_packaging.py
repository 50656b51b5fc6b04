"""What is installed: every package and every YAML, and a wheel that works on its own from another folder."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from helpers.tiny_config import TINY
from packaging.specifiers import SpecifierSet
from versions import REUSED, SETS, requirements, wanted

import easycap

ROOT = Path(__file__).parents[1]


def test_the_list_of_packages_is_what_is_on_disk() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = {
        str(p.parent.relative_to(ROOT)).replace("/", ".") for p in (ROOT / "easycap").rglob("__init__.py")
    }
    assert listed == found | {"easycap.conf", "easycap.experiments"}


def test_no_machine_path_is_in_the_repository() -> None:
    here = (f"{ROOT}/", f"{Path.home()}/")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    for name in filter(None, tracked):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".yaml", ".cfg", ".toml", ".json", ".txt"} and path != Path(
            __file__
        ):
            text = path.read_text(encoding="utf-8")
            assert not any(folder in text for folder in here), name


def pins() -> dict[str, str]:
    """The lines of constraints.txt, which are nothing but names and versions."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    assert lines == sorted(lines)
    return dict(re.fullmatch(r"([a-z0-9-]+)==([\w.]+)", line).groups() for line in lines)


def test_every_dependency_has_two_bounds() -> None:
    for name, bounds in requirements().items():
        assert re.fullmatch(r">=[\d.]+,<[\d.]+", bounds), f"{name}{bounds}: as in >=1.2,<2"


def test_the_versions_of_the_tests_are_allowed_ones() -> None:
    pinned = pins()
    for name, bounds in requirements().items():
        assert pinned[name] in SpecifierSet(bounds), f"constraints.txt has {name}=={pinned[name]}"


def test_what_a_build_of_torch_brings_is_not_pinned() -> None:
    """CUDA's libraries are torch's to choose, and neither on macOS nor in torch's CPU build."""
    assert not [name for name in pins() if name.startswith(("nvidia-", "cuda-", "triton"))]


def test_both_ways_of_installing_obey_the_constraints() -> None:
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    installing = [line for line in lines if "pip install" in line]
    assert len(installing) == 2 and all("-c constraints.txt" in line for line in installing)
    (stamp,) = (line for line in lines if line.startswith("$(STAMP):"))
    assert {"setup.cfg", "pyproject.toml", "constraints.txt"} <= set(stamp.split())


def test_sets_of_versions_are_the_ends_of_the_ranges() -> None:
    ranges = {name: bounds for name, bounds in requirements().items() if name not in REUSED}
    for name, oldest, newest, released in zip(ranges, *map(wanted, SETS), strict=True):
        assert oldest == f"{name}=={ranges[name].split(',')[0].removeprefix('>=')}"
        assert (newest, released) == (name + ranges[name], name)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel alone; its dependencies are looked up in the one that runs the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True, timeout=300)
    # The parent's packages, less easycap itself: an editable install is a .pth file that is not read from here.
    site = next((environment / "lib").glob("python*")) / "site-packages"
    parents = [path for path in sys.path if path.endswith("site-packages")]
    (site / "parent.pth").write_text("\n".join(f"import sys; sys.path.append({path!r})" for path in parents))
    return environment


@pytest.mark.slow
def test_the_wheel_carries_every_yaml_and_template(installed: Path) -> None:
    (wheel,) = installed.parent.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert f"easycap/conf/{path.relative_to(ROOT / 'conf')}" in inside
    for path in (ROOT / "easycap" / "report" / "templates").iterdir():
        assert f"easycap/report/templates/{path.name}" in inside
    published = {
        f"easycap/experiments/{p.parent.name}/{p.name}" for p in ROOT.glob("experiments/*/published.yaml")
    }
    assert len(published) >= 5 and published == {n for n in inside if n.startswith("easycap/experiments/")}
    assert not any(name.startswith(("tests/", "experiments/", "conf/")) for name in inside)


@pytest.mark.slow
def test_the_installed_wheel_trains_from_another_folder(installed: Path, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("EASYCAP_OUTPUTS", "PYTHONPATH")}
    environment["OMP_NUM_THREADS"] = "1"

    def easycap(*argv: str) -> str:
        command = [installed / "bin" / "easycap", *argv]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = [installed / "bin" / "python", "-c", "import easycap; print(easycap.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert str(installed) in found.stdout, "the wheel is tested, not the checkout"
    assert "gpt2_tiny" in easycap("train", "--help")
    assert "ResNet baseline, cross entropy" in easycap("table", "updown")
    assert "CIDEr-D" in easycap("train", *TINY, "trainer.max_steps=2")
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    assert (run / "report.html").is_file()
    photo = next((run / "samples" / "images").glob("*.png"))
    assert photo.name in easycap("caption", str(run), str(photo))


def test_the_citation_and_the_image_follow_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == easycap.__version__ and citation["license"] == "MIT"
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    extras = re.search(r'"\.\[([\w,]+)\]"', dockerfile)[1].split(",")
    assert set(config["options.extras_require"]) - set(extras) == {"slurm", "mlflow", "dev"}
    for line in dockerfile.splitlines():
        if line.startswith("COPY "):
            assert all((ROOT / name).exists() for name in line.split()[1:-1]), line
