"""Small image files and JSON files below a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from easycap.config.instantiate import build
from easycap.config.schema import option_from_text
from easycap.types import Dataset


def write_images(root: Path, *names: str) -> None:
    """Write black images of 8 x 8 pixels; names may have folders."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / name)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def read_set(root: Path | str, option: str = "tables", *overrides: str) -> Dataset:
    """The data set that an option of `data` reads below a folder, with overrides such as data.train=x or train=x."""
    settings = [override.removeprefix("data.") for override in overrides]
    config = option_from_text("data", ",".join([option, f"root={root}", *settings]))
    return build("data", config, pixels=True, with_tags=False)
