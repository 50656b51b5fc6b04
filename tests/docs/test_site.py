"""The site of docs/ builds without a warning, and needs nothing from other servers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return site


def test_every_page_is_on_the_site(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages <= {path.stem for path in site.glob("*.html")}


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|link)\b[^>]*?\b(?:src|href)="(https?:[^"]+)"', html)
        assert not loaded, page.name


def test_links_to_files_of_the_repository_are_text_or_lead_to_the_code_host(site: Path) -> None:
    html = (site / "components.html").read_text(encoding="utf-8")
    assert "<code>conf/</code>" in html and 'href="../' not in html


def test_each_page_answers_a_question() -> None:
    for path in (ROOT / "docs").glob("*.md"):
        if path.stem not in ("index", "tutorial"):
            text = path.read_text(encoding="utf-8")
            assert re.match(r"# [^\n]+\n\n\*[A-Z][^\n]+\?\*\n\n", text), path.name


def test_the_hosted_workflow_runs_the_tests_with_the_oldest_and_the_newest_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    oldest, newest = job["strategy"]["matrix"]["python"]
    assert f"python_requires = >={oldest}\n" in (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert tuple(map(int, newest.split("."))) > tuple(map(int, oldest.split(".")))
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make test PYTHON=python"]
