"""Write docs/tutorial.ipynb: the steps of docs/tutorial.md that are Python, as a notebook.

    python docs/make_notebook.py

A test compares the notebook with what this makes. Outputs are those that the page shows, which the tests check.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
NOTEBOOK = FOLDER / "tutorial.ipynb"
_END = "\n## 13. "  # from here on the page is about the command line and files
_NOTE = re.compile(r"<!-- test: .*? -->\n")
_BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
_HOW_TO_USE = re.compile(r"\*\*How to use this page\.\*\*.*?\n\n", re.DOTALL)
_HERE = """**How to use this notebook.** Run it in an environment with easycap ([installation](install.md)), one cell
after the other: about a minute on a laptop. Your decimals may differ slightly from those shown. It is made from the
[tutorial](tutorial.md), which continues with the command line and with components of your own.

"""


def notebook(page: str) -> str:
    """Return the notebook of a page of Markdown, as JSON."""
    text = _NOTE.sub("", page.partition(_END)[0])
    text, count = _HOW_TO_USE.subn(_HERE, text)
    assert count == 1, "the page says no longer how to use it"
    cells: list[dict[str, Any]] = []
    place = 0
    for block in _BLOCK.finditer(text):
        cells += [_markdown(text[place : block.start()]), _code(block[1], block[2])]
        place = block.end()
    cells.append(_markdown(text[place:]))
    content = {
        "cells": [cell for cell in cells if cell["source"]],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _markdown(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": _lines(text.strip())}


def _code(code: str, shown: str | None) -> dict[str, Any]:
    outputs = [{"name": "stdout", "output_type": "stream", "text": _lines(shown)}] if shown else []
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": outputs,
        "source": _lines(code.strip()),
    }


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook((FOLDER / "tutorial.md").read_text(encoding="utf-8")), encoding="utf-8")
