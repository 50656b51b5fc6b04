"""docs/tutorial.ipynb is what docs/make_notebook.py makes of docs/tutorial.md, whose blocks the tests run."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from markdown_blocks import read_blocks

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_notebook", DOCS / "make_notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_is_in_step_with_the_page(script: ModuleType) -> None:
    made = script.notebook((DOCS / "tutorial.md").read_text(encoding="utf-8"))
    stored = (DOCS / "tutorial.ipynb").read_text(encoding="utf-8")
    assert made == stored, "run python docs/make_notebook.py"


def test_its_cells_are_the_steps_in_python(script: ModuleType) -> None:
    """By the reader of the tests, which knows nothing of the script's."""
    cells = json.loads((DOCS / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    blocks = [block for block in read_blocks(DOCS / "tutorial.md") if block.language == "python"]
    steps = [block for block in blocks if block.option("file") is None][: len(code)]
    assert len(code) >= 20 and code == [block.text.strip() for block in steps]
    shown = [
        "".join(cell["outputs"][0]["text"]) if cell["outputs"] else None
        for cell in cells
        if "outputs" in cell
    ]
    assert shown == [block.output for block in steps]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert [heading.split(".")[0] for heading in headings] == [f"## {step}" for step in range(1, 13)]
    assert "<!--" not in text and "paste" not in text
