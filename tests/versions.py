"""Run the quick tests and a short training with other versions of the dependencies: `make test-versions`.

Each set of versions has an environment of its own, .venv-SET, beside the one that runs this. What is not of another
version is found in the latter, torch and torchvision always: nothing of theirs is installed twice.

oldest    the lower bounds of setup.cfg
newest    the newest that setup.cfg allows
released  the newest there are; what the bounds, or other packages, hold back is listed
"""

from __future__ import annotations

import argparse
import configparser
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from importlib.metadata import version
from pathlib import Path

from helpers.tiny_config import TINY

ROOT = Path(__file__).parents[1]
REUSED = ("torch", "torchvision")
SETS = ("oldest", "newest", "released")


def requirements() -> dict[str, str]:
    """Return the range of each dependency in setup.cfg, extras too, e.g. {"timm": ">=1.0,<1.1"}."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lists = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    lines = [line for line in "\n".join(lists).split() if not line.startswith("easycap[")]  # extras of ours
    return dict(re.fullmatch(r"([\w-]+)(.*)", line).groups() for line in lines)


def wanted(versions: str) -> list[str]:
    """Return what pip is told to install for a set of versions, without what is reused."""
    ranges = {name: bounds for name, bounds in requirements().items() if name not in REUSED}
    if versions == "released":
        return list(ranges)
    if versions == "newest":
        return [name + bounds for name, bounds in ranges.items()]
    return [name + bounds.split(",")[0].replace(">=", "==") for name, bounds in ranges.items()]


def environment(versions: str) -> Path:
    """Return the Python of .venv-SET, made anew, with that set of versions and easycap as it lies here."""
    folder = ROOT / f".venv-{versions}"
    venv.create(folder, clear=True, with_pip=True)
    python = folder / "bin" / "python"
    inside = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(inside, capture_output=True, text=True, check=True).stdout.strip())
    # Looked up after its own packages; the files that make an install editable are not read from there.
    parents = [path for path in sys.path if path.endswith("site-packages")]
    (site / "parent.pth").write_text("\n".join(parents), encoding="utf-8")
    # Compiled when imported: most modules never are.
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("".join(f"{name}=={version(name)}\n" for name in REUSED))
        constraints.flush()
        subprocess.run([*pip, "--upgrade", "-c", constraints.name, *wanted(versions)], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", ROOT], check=True)
    return python


def listed(python: Path, *options: str) -> list[dict[str, str]]:
    """Return our dependencies as `pip list` shows them: name, version and, where asked for, latest_version."""
    command = [python, "-m", "pip", "list", "--format=json", "--disable-pip-version-check", *options]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    ours = requirements()
    return [one for one in found if one["name"].lower().replace("_", "-") in ours]


def train(python: Path) -> bool:
    """Return whether twenty steps of training, their evaluation and their report came to an end."""
    with tempfile.TemporaryDirectory() as outputs:
        overrides = [*TINY, "trainer.epochs=4", "trainer.max_steps=20"]
        variables = os.environ | {"EASYCAP_OUTPUTS": outputs}
        done = subprocess.run([python, "-m", "easycap.cli", "train", *overrides], cwd=ROOT, env=variables)
    return done.returncode == 0


def run(versions: str, tests: list[str], workers: int) -> bool:
    """Try one set of versions; say what is in it and what broke, and return whether nothing did."""
    python = environment(versions)
    print(
        f"\n{versions}:", " ".join(f"{one['name']}=={one['version']}" for one in listed(python)), flush=True
    )
    if versions == "released":
        held = listed(python, "--outdated")
        print("held back:", " ".join(f"{one['name']}=={one['latest_version']}" for one in held) or "none")
    trained = train(python)
    command = [python, "-m", "pytest", "-q", "-n", str(workers), "-m", "not slow and not gpu", *tests]
    tested = subprocess.run(command, cwd=ROOT).returncode == 0
    print(f"{versions}: training {_word(trained)}, tests {_word(tested)}", flush=True)
    return trained and tested


def _word(fine: bool) -> str:
    return "passed" if fine else "FAILED"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("versions", nargs="*", choices=SETS, default=SETS)
    parser.add_argument("--tests", nargs="+", default=["tests"], help="files or folders of tests")
    parser.add_argument("--workers", type=int, default=2, help="processes that run tests")
    args = parser.parse_args()
    fine = {versions: run(versions, args.tests, args.workers) for versions in args.versions}
    # What the newest released versions break is news, and no fault of what setup.cfg promises.
    sys.exit(not all(passed for versions, passed in fine.items() if versions != "released"))


if __name__ == "__main__":
    main()
