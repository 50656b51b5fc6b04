"""What is installed: every package and every YAML, and a wheel that works on its own from another folder."""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
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


README = """# easycap

<!-- test: skip: no -->
```console
$ easycap data guess [DIR](x)
```

![A picture
of two](docs/a.png)

See [the guide](docs/guide.md#here), [them](https://example.org/a) and [`x`](easycap/x.py).
"""


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ("", "See the guide, [them](https://example.org/a) and `x`.\n"),
        (
            "https://host/me/easycap/",
            "![A picture\nof two](https://host/me/easycap/raw/main/docs/a.png)\n\nSee [the guide]"
            "(https://host/me/easycap/blob/main/docs/guide.md#here), [them](https://example.org/a) and "
            "[`x`](https://host/me/easycap/blob/main/easycap/x.py).\n",
        ),
    ],
)
def test_on_a_package_index_no_link_is_relative(repository: str, expected: str) -> None:
    found = described()(README, repository)
    assert found == f"# easycap\n\n```console\n$ easycap data guess [DIR](x)\n```\n\n{expected}"
    whole = described()((ROOT / "README.md").read_text(encoding="utf-8"), repository)
    outside_code = re.sub(r"^```.*?^```$", "", whole, flags=re.MULTILINE | re.DOTALL)
    assert len(whole) > 5000 and not re.search(r"\]\((?!https:)", outside_code)


def described() -> Callable[[str, str], str]:
    """The function of setup.py, which sets nothing up when it is imported."""
    spec = importlib.util.spec_from_file_location("easycap_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.long_description


def test_the_site_and_the_package_index_link_to_one_repository() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    assert config["metadata"].get("url") == site.get("repo_url")


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
    for path in (ROOT / "easycap" / "commands" / "skeletons").rglob("*.txt"):
        assert path.relative_to(ROOT).as_posix() in inside
    assert len(published) >= 5 and published == {n for n in inside if n.startswith("easycap/experiments/")}
    assert not any(name.startswith(("tests/", "experiments/", "conf/")) for name in inside)


def run_in(folder: Path, *words: str | Path) -> tuple[int, str]:
    """Run a command of the environment in a folder; return its exit code and all it prints."""
    environment = {k: v for k, v in os.environ.items() if k not in ("EASYCAP_OUTPUTS", "PYTHONPATH")}
    environment = {k: v for k, v in environment.items() if not k.startswith("PYTEST_")} | {
        "OMP_NUM_THREADS": "1"
    }
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_package_of_ones_own_is_found_by_the_installed_wheel(installed: Path, tmp_path: Path) -> None:
    """From an empty folder: written, installed, tested, trained, swept, evaluated; named in an error when gone."""
    python, easycap = installed / "bin" / "python", installed / "bin" / "easycap"

    def passes(*words: str | Path) -> str:
        code, printed = run_in(tmp_path, *words)
        assert code == 0, printed
        return printed

    passes(easycap, "new", "decoder", "my_gru")
    pip = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "-e", "./my_gru"]
    passes(python, "-m", "pip", *pip)
    assert "4 passed" in passes(python, "-m", "pytest", "-p", "no:cacheprovider", "my_gru")
    own = ("decoder.width=", "decoder.num_heads=", "decoder.num_layers=")
    words = [word for word in TINY if not word.startswith(own)] + ["decoder=my_gru", "trainer.max_steps=5"]
    passes(easycap, "train", "-m", *words, "decoder.width=16,24")
    runs = sorted((tmp_path / "outputs" / "sweeps").glob("*/*-*"))
    assert len(runs) == 2
    assert "CIDEr-D" in passes(easycap, "evaluate", runs[0], "--device", "cpu")
    passes(python, "-m", "pip", "uninstall", "--quiet", "--yes", "my_gru")
    (tmp_path / "empty").mkdir()
    code, printed = run_in(tmp_path / "empty", easycap, "evaluate", runs[0])
    assert code == 1 and "imports: no module my_gru" in printed


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
    assert set(config["options.extras_require"]) - set(extras) == {"slurm", "mlflow", "onnx", "all", "dev"}
    for line in dockerfile.splitlines():
        if line.startswith("COPY "):
            assert all((ROOT / name).exists() for name in line.split()[1:-1]), line
