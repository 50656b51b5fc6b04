"""`data=huggingface` with names on the hub, which is a server on this machine."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from helpers.fake_hub import COMMIT, FakeHub, serving
from PIL import Image

# What follows HF_ENDPOINT does so when the library is imported: each hub needs a process of its own.
_READ = """
import json, sys
from easycap.data.huggingface import huggingface
from easycap.data.issues import OnBadImage

names = "config revision train val test image_column caption_column id_column".split()
settings = dict.fromkeys(names) | {"val_share": 0.1, "test_share": 0.1, "seed": 0, "streaming": False}
for changes in json.loads(sys.argv[1]):
    try:
        data = huggingface(True, on_bad_image=OnBadImage.error, **(settings | changes))
        ids = {split: [one.id for one in examples] for split, examples in data.splits.items()}
        first = data.splits["train"][0]
        print(json.dumps([ids, first.references[0], first.image.array().shape, data.fingerprint]))
    except ValueError as error:
        print(json.dumps(str(error)))
"""


def png(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (9, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def parquet(numbers: range) -> bytes:
    file = io.BytesIO()
    entries = [{"image": {"bytes": png(n), "path": f"{n}.png"}, "caption": f"a dog {n}"} for n in numbers]
    datasets.Dataset.from_list(entries).cast_column("image", datasets.Image()).to_parquet(file)
    return file.getvalue()


def image_folder() -> dict[str, bytes]:
    table = "".join(json.dumps({"file_name": f"{n}.png", "text": f"a dog {n}"}) + "\n" for n in range(12))
    return {f"train/{n}.png": png(n) for n in range(12)} | {"train/metadata.jsonl": table.encode()}


CARD = b"""---
configs:
- config_name: en
  data_files: en/*.parquet
- config_name: de
  data_files: de/*.parquet
---
"""
FILES = {
    "owner/photos": {
        "data/train-00000-of-00002.parquet": parquet(range(8)),
        "data/train-00001-of-00002.parquet": parquet(range(8, 16)),
        "data/validation-00000-of-00001.parquet": parquet(range(16, 20)),
    },
    "owner/folder": image_folder(),
    "owner/languages": {
        "README.md": CARD,
        "en/train.parquet": parquet(range(6)),
        "de/train.parquet": parquet(range(6, 12)),
    },
    "owner/program": {"program.py": b"raise SystemExit(3)"},
}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serving(FILES) as server:
        yield server


def environment(home: Path, hub: FakeHub) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTEST_"))}
    return kept | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "EASYCAP_CACHE": str(home / "easycap")}


def read(home: Path, hub: FakeHub, *sets: dict[str, str]) -> list[Any]:
    """What is read of each of several sets, given by settings: ids by split and the first image, or the error."""
    command = [sys.executable, "-c", _READ, json.dumps(sets)]
    done = subprocess.run(command, env=environment(home, hub), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


SETS = [{"path": "owner/photos"}, {"path": "owner/folder"}, {"path": "owner/languages", "config": "de"}]
WRONG = {
    "data.path=owner/photo is not a folder here, and the hub has no such data set": {"path": "owner/photo"},
    "owner/languages has several configurations: set data.config to one of de, en": {
        "path": "owner/languages"
    },
    "data.config=dee does not exist; did you mean 'de'? allowed: de, en": SETS[2] | {"config": "dee"},
    "data.path=owner/program is a program that makes the data, which is not run": {"path": "owner/program"},
}


def test_sets_are_read_by_name_and_what_is_wrong_is_told(hub: FakeHub, tmp_path: Path) -> None:
    streamed = SETS[0] | {"streaming": True}
    first, photos, folder, german, pinned, *errors = read(
        tmp_path, hub, streamed, *SETS, SETS[0] | {"revision": COMMIT}, *WRONG.values()
    )
    assert first[:3] == photos[:3]
    assert sorted(photos[0]["train"] + photos[0]["test"]) == sorted(f"{n}.png" for n in range(16))
    assert photos[0]["val"] == [f"{n}.png" for n in range(16, 20)] and photos[0]["test"]
    assert photos[1:3] == ["a dog 0", [9, 8, 3]] and pinned == photos
    assert {one for its in folder[0].values() for one in its} == {f"train/{n}.png" for n in range(12)}
    assert {one for its in german[0].values() for one in its} == {f"{n}.png" for n in range(6, 12)}
    files = [path for method, path, part in hub.asked if method == "GET" and part is None]
    files = [path for path in files if path.endswith((".parquet", ".png"))]
    assert len(files) == len(set(files))  # each once, but parts of those that are streamed
    assert len([part for part in hub.sent("-00002.parquet") if part]) >= 2
    for beginning, message in zip(WRONG, errors, strict=True):
        assert message.startswith(beginning)


@pytest.mark.slow
def test_what_was_read_is_there_without_the_hub(hub: FakeHub, tmp_path: Path) -> None:
    found = read(tmp_path, hub, *SETS)
    hub.server_close()
    *again, message = read(tmp_path, hub, *SETS, {"path": "owner/other"})
    assert again == found
    assert "is not a folder here, and the hub cannot be reached" in message
