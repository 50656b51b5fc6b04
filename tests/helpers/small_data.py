"""Small image files and JSON files below a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image


def write_images(root: Path, *names: str) -> None:
    """Write black images of 8 x 8 pixels; names may have folders."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / name)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
