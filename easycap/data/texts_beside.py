"""Texts next to images: NAME.txt or NAME.json next to NAME.jpg, one of each image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from easycap.data.issues import DataIssues
from easycap.data.text_files import read_text
from easycap.errors import UserError, json_fault


def text_beside(path: Path, issues: DataIssues) -> list[str] | Mapping[str, Any] | None:
    """Return the captions of a text file, a line each, or the object of a JSON file; None goes with an issue."""
    try:
        text = read_text(path)
    except UserError as error:
        issues.malformed(str(path), str(error).removeprefix(f"{path} "))
        return None
    if path.suffix.lower() != ".json":
        return [line for line in text.split("\n") if line.strip()]
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        issues.malformed(str(path), f"is not valid JSON ({json_fault(error)})")
        return None
    if not isinstance(values, dict):
        issues.malformed(str(path), "is not a JSON object")
        return None
    return values
