"""README.md and the pages of docs/: every command and Python block runs, scaled down; every link leads somewhere."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from markdown_blocks import Block, read_blocks
from named_in_pages import make_files, make_runs, small
from run_blocks import Page, run_here

from easycap.cli import main
from easycap.demo.server import DemoServer
from easycap.registry import condition_groups, groups, lookup, names, supplied_to

ROOT = Path(__file__).parents[2]
IN_A_COPY = {"tutorial.md", "extending.md"}  # test_tutorial.py
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [path for path in TEXTS if path.name not in IN_A_COPY]
SLOW = [path for path in PAGES if any(block.option("slow") is not None for block in read_blocks(path))]


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> Path:
    """An outputs/ with the runs that pages name; each test copies it."""
    outputs = tmp_path_factory.mktemp("named") / "outputs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EASYCAP_OUTPUTS", str(outputs))
        patch.setenv("EASYCAP_CACHE", str(scenes_cache))
        make_runs(outputs)
    return outputs


@pytest.fixture
def named(folder: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with everything that pages name."""
    shutil.copytree(outputs, folder / "outputs", dirs_exist_ok=True)
    make_files(folder)
    monkeypatch.setenv("COLUMNS", "160")
    return folder


def run_page(path: Path, *, slow: bool) -> None:
    page = Page(path.name, run_words, scaled)
    for block in read_blocks(path):
        if block.language in ("python", "console") and (block.option("slow") is not None) == slow:
            page.run(block)


def scaled(words: list[str], block: Block) -> list[str]:
    """The words of a command as its block's note and `small` change them."""
    if (other := re.search(r"(?:^|; )(\w+) is (\w+)", block.note)) is not None:
        words = [re.sub(rf"\b{other[1]}\b", other[2], word) for word in words]
    trains = "easycap" in words and words[words.index("easycap") + 1] == "train"
    if not trains or "--help" in words:
        return words
    return small(words, (block.option("with") or "").split())


def run_words(words: list[str]) -> tuple[int, str]:
    """Run a command; those that would install something are only checked."""
    if words[0] == "git" or words[:2] == ["pre-commit", "install"]:
        return 0, ""
    if words[0] == "make":  # what it would do
        return 0, subprocess.run(
            ["make", "-n", "-C", str(ROOT), *words[1:]], check=True, text=True
        ).stdout or ""
    if words[0] == "pip":
        return check_pip(words)
    if words[0] == "torchrun":
        command = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr
    assert words[0] == "easycap", f"nothing runs {words[0]}"
    with pytest.MonkeyPatch.context() as patch:  # it would serve until Ctrl-C
        patch.setattr(DemoServer, "serve_forever", interrupt)
        return run_here(words)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def check_pip(words: list[str]) -> tuple[int, str]:
    """The files and extras that a `pip install` names exist."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = set(config["options.extras_require"])
    assert words[:3] == ["pip", "install", "-c"] and (ROOT / words[3]).is_file()
    assert set(re.findall(r"\[(\w+)\]", words[-1])) <= extras
    return 0, ""


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_what_a_page_shows_runs(path: Path, named: Path) -> None:
    run_page(path, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("path", SLOW, ids=lambda path: path.stem)
def test_what_a_page_shows_and_takes_longer_runs(path: Path, named: Path) -> None:
    run_page(path, slow=True)


def test_only_what_cannot_be_run_is_skipped() -> None:
    skipped = [block for path in TEXTS for block in read_blocks(path) if block.option("skip") is not None]
    assert len(skipped) <= 6 and all(block.option("skip") for block in skipped), "a skip has a reason"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in target]
    missing = [target for target in targets if not (path.parent / target).exists()]
    assert not missing


def inline_code(path: Path) -> list[str]:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


def test_settings_named_in_a_sentence_exist() -> None:
    """`trainer.ema=0.999` in running text: the group has the option or the field."""
    groups = {path.name: path for path in (ROOT / "conf").iterdir() if path.is_dir()}
    fields = {
        name: {key for file in path.rglob("*.yaml") for key in yaml.safe_load(file.read_text()) or {}}
        for name, path in groups.items()
    }
    unknown = []
    for path in TEXTS:
        for code in inline_code(path):
            for group, field, option in re.findall(r"(?<![\w./-])(\w+)(?:\.(\w+))?=(\w*)", code):
                if group in groups and field and field not in fields[group]:
                    unknown.append(f"{path.name}: {group}.{field}")
                if group in groups and not field and option.islower():
                    files = {file.stem for file in groups[group].rglob("*.yaml")} | {"x"}
                    if option not in files and not (groups[group] / option).is_dir():
                        unknown.append(f"{path.name}: {group}={option}")
    assert not unknown


def test_options_named_in_a_sentence_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """`--csv` in running text is an option of some command."""
    for command in (
        "train",
        "data",
        "evaluate",
        "average",
        "caption",
        "score",
        "compare",
        "table",
        "runs",
        "new",
        "export",
        "import",
        "share",
        "demo",
    ):
        with contextlib.suppress(SystemExit):
            main([command, "--help"])
    known = set(re.findall(r"--[a-z][\w-]*", capsys.readouterr().out)) | {
        "--cfg",
        "--constraint",
        "--no-deps",
        *("--max-restarts", "--nnodes", "--nproc-per-node", "--rdzv-backend", "--rdzv-endpoint"),  # torchrun
        "--shm-size",  # docker
    }
    named = {
        option
        for path in TEXTS
        for code in inline_code(path)
        for option in re.findall(r"--[a-z][\w-]*", code)
    }
    assert len(named) > 5 and named <= known


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 1200


def test_the_page_on_extending_says_what_each_component_is_given() -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    table = text.partition("### What a component is given")[2].partition("\n## ")[0]
    rows = [row.split("|")[1:3] for row in table.splitlines() if row.startswith("| `")]
    documented = {group: given for groups_, given in rows for group in re.findall(r"`(\w+)`", groups_)}
    assert set(documented) | condition_groups() == set(groups()) - {"scorer"}
    for group, given in documented.items():
        allowed = set(re.findall(r"`(\w+)`", given))
        asked = {argument for name in names(group) for argument in supplied_to(lookup(group, name))}
        assert asked <= allowed, group
