"""What is installed: every package and every YAML, and a wheel that works on its own from another folder."""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml
from helpers.tiny_config import TINY
from packaging.specifiers import SpecifierSet
from versions import REUSED, SETS, requirements, wanted

import easycap
from easycap.utils.extras import MODULES

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

*What it shows.*

*See* [the guide](docs/guide.md#here), [them](https://example.org/a) and [`x`](easycap/x.py).
"""


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ("", "*See* the guide, [them](https://example.org/a) and `x`.\n"),
        (
            "https://host/me/easycap/",
            "![A picture\nof two](https://host/me/easycap/raw/main/docs/a.png)\n\n*What it shows.*\n\n*See* [the guide]"
            "(https://host/me/easycap/blob/main/docs/guide.md#here), [them](https://example.org/a) and "
            "[`x`](https://host/me/easycap/blob/main/easycap/x.py).\n",
        ),
    ],
)
def test_on_a_package_index_no_link_is_relative(repository: str, expected: str) -> None:
    found = described()(README, repository)
    assert found == f"# easycap\n\n```console\n$ easycap data guess [DIR](x)\n```\n\n{expected}"
    whole = described()((ROOT / "README.md").read_text(encoding="utf-8"), repository)
    assert len(whole) > 5000 and not relative_links(whole)


def relative_links(markdown: str) -> list[str]:
    """Those outside code."""
    outside = re.sub(r"^```.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\((?!https:)[^)]*\)", outside)


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
    # The core alone: no package of an extra can be imported.
    absent = [module for modules in MODULES.values() for module in modules]
    (site_of(environment) / "absent.pth").write_text(
        f"import sys; sys.modules.update(dict.fromkeys({absent!r}))"
    )
    # The parent's packages, less easycap itself: an editable install is a .pth file that is not read from here.
    parents = [path for path in sys.path if path.endswith("site-packages")]
    lines = [f"import sys; sys.path.append({path!r})" for path in parents]
    (site_of(environment) / "parent.pth").write_text("\n".join(lines))
    return environment


def site_of(environment: Path) -> Path:
    return next((environment / "lib").glob("python*")) / "site-packages"


@pytest.mark.slow
def test_the_wheel_carries_every_yaml_and_template(installed: Path) -> None:
    (wheel,) = installed.parent.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    inside = set(archive.namelist())
    (metadata,) = (name for name in inside if name.endswith(".dist-info/METADATA"))
    assert not relative_links(archive.read(metadata).decode())
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


@pytest.fixture(scope="module")
def trained(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An empty folder in which the installed command has trained a run, and the run."""
    folder = tmp_path_factory.mktemp("empty")
    assert "CIDEr-D" in printed_by(installed, folder, "train", *TINY, "trainer.max_steps=2")
    (run,) = (folder / "outputs" / "runs").iterdir()
    return folder, run


def printed_by(installed: Path, folder: Path, *words: str | Path) -> str:
    code, printed = run_in(folder, installed / "bin" / "easycap", *words)
    assert code == 0, printed
    return printed


@pytest.mark.slow
def test_the_installed_wheel_trains_from_an_empty_folder(installed: Path, trained: tuple[Path, Path]) -> None:
    folder, run = trained
    code, where = run_in(
        folder, installed / "bin" / "python", "-c", "import easycap; print(easycap.__file__)"
    )
    assert code == 0 and str(installed) in where, "the wheel is tested, not the checkout"
    assert (run / "report.html").is_file()
    assert "gpt2_tiny" in printed_by(installed, folder, "train", "--help")
    assert "ResNet baseline, cross entropy" in printed_by(installed, folder, "table", "updown")
    photo = next((run / "samples" / "images").glob("*.png"))
    assert photo.name in printed_by(installed, folder, "caption", run, photo)
    code, printed = run_in(folder, installed / "bin" / "easycap", "train", *TINY[:-1], "tracking=wandb")
    assert code == 1 and 'tracking=wandb needs wandb: pip install "easycap[wandb]"' in printed


IN_PYTHON = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
import easycap

run, *words = sys.argv[1:]
photos = sorted(Path(run, "samples", "images").glob("*.png"))
captioner = easycap.load(run, device="cpu")
captions = captioner.caption([photos[0], Image.open(photos[0]), np.zeros((8, 8, 3), np.uint8)])
assert isinstance(captioner.caption(photos[0]), str) and captions[0] == captions[1] and len(captions) == 3
captioner.save_pretrained("shared")
assert easycap.load("shared", device="cpu").caption(photos[0]) == captions[0]
again = easycap.train([*words, "seed=2"])
assert "CIDEr-D" in easycap.evaluate(again.folder, device="cpu")["test"]
assert easycap.score({"1": "a dog"}, {"1": ["a dog", "the dog"]})["BLEU-1"].value > 0.99
rows = easycap.compare([run, again.folder])
assert [row["run"] for row in rows] and len(rows) == 2
print("all of it")
"""


@pytest.mark.slow
def test_the_installed_wheel_in_python(installed: Path, trained: tuple[Path, Path]) -> None:
    folder, run = trained
    words = [*TINY, "trainer.max_steps=2"]
    code, printed = run_in(folder, installed / "bin" / "python", "-c", IN_PYTHON, run, *words)
    assert code == 0 and "all of it" in printed, printed


@pytest.mark.slow
def test_the_installed_wheel_writes_captions_beside_photos(
    installed: Path, trained: tuple[Path, Path]
) -> None:
    folder, run = trained
    photos = shutil.copytree(run / "samples" / "images", folder / "photos")
    count = len(list(photos.iterdir()))
    assert f"{count}" in printed_by(installed, folder, "caption", run, photos, "--txt", "--dry-run")
    assert not list(photos.glob("*.txt"))
    printed_by(installed, folder, "caption", run, photos, "--txt")
    assert len(list(photos.glob("*.txt"))) == count
    removed = next(photos.glob("*.txt"))
    text = removed.read_text()
    removed.unlink()
    printed_by(installed, folder, "caption", run, photos, "--txt")
    assert removed.read_text() == text
    printed_by(installed, folder, "caption", run, photos, "--csv", "captions.csv")
    printed_by(installed, folder, "caption", run, photos, "--jsonl", "captions.jsonl")
    assert len((folder / "captions.csv").read_text().splitlines()) == count + 1
    assert len((folder / "captions.jsonl").read_text().splitlines()) == count


@pytest.mark.slow
def test_the_installed_wheel_serves_a_page(installed: Path, trained: tuple[Path, Path]) -> None:
    folder, run = trained
    photo = next((run / "samples" / "images").glob("*.png")).read_bytes()
    command = [installed / "bin" / "easycap", "demo", run, "--port", "0", "--device", "cpu"]
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, preexec_fn=heeds) as demo:
        try:
            address = re.match(r"demo: (http://127\.0\.0\.1:\d+)", demo.stdout.readline())[1]
            with urlopen(address, timeout=60) as page:
                assert b"<html" in page.read()
            request = Request(f"{address}/api/caption", photo, {"X-Easycap-Demo": "1"})
            with urlopen(request, timeout=60) as answer:
                lines = [json.loads(line) for line in answer.read().splitlines()]
            demo.send_signal(signal.SIGINT)
            assert demo.wait(60) == 0
        finally:
            demo.kill()
    assert "photo" in lines[0] and lines[1]["run"] == 0 and "error" not in lines[1]


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
