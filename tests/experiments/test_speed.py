"""Scripts that measure still start: what they call changes without them."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

import pytest

from easycap.data.shards import index_files

SPEED = Path(__file__).parents[2] / "experiments" / "speed"


def test_a_small_coco_is_generated_read_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SPEED))
    script = importlib.import_module("full_size_coco")
    monkeypatch.setattr(script, "VAL_IMAGES", 2)
    out = tmp_path / "found.json"
    asked = ["--images", "64", "--workers", "0", "--epochs", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["full_size_coco.py", *asked])
    script.main()
    found = json.loads(out.read_text())
    assert found["images"] == 64 and found["epoch 1, images/s"] > 0


def test_a_small_table_is_generated_read_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SPEED))
    monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path / "cache"))
    script = importlib.import_module("tables")
    for name, count in (("small", 10), ("captions", 60)):
        script.write_table(tmp_path / f"{name}.jsonl", count)
    script.write_images(tmp_path, 60)
    found = script.measure(tmp_path / "captions.jsonl", pixels=True, workers=0)
    assert sum(found["images"].values()) == 60 and found["first batch, s"] > found["read, s"] > 0


def test_small_shards_are_generated_read_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SPEED))
    monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path / "cache"))
    script = importlib.import_module("shards")
    monkeypatch.setattr(script, "_IN_A_SHARD", 150)
    for name, count in (("small", 20), ("large", 400), ("plain", 400)):
        (tmp_path / name).mkdir()
        script.write_shards(tmp_path / name, count, indexed=name != "plain")
    for path in (tmp_path / "large").glob("*.tar"):
        made = index_files.load_index(Path(f"{path}.index").read_bytes(), "")
        (shard,) = index_files.shards_at([str(path)], cache_bytes=0)
        read = index_files.read_index(shard)
        assert list(made.texts) == list(read.texts) and list(made.keys) == list(read.keys)
        for name in ("sample", "suffix", "offset", "length", "crc", "text"):
            assert (getattr(made, name) == getattr(read, name)).all()
    assert script.index_seconds(tmp_path / "plain") > 0
    args = argparse.Namespace(workers=[1], rounds=1, batches=2)
    found = script.measure(tmp_path, args)
    assert found["read, CPU s"] > 0
    assert [(row["by"], row["processes"]) for row in found["loaded"]] == [("easycap", 1), ("webdataset", 1)]
    assert all(row["images/s"] > 0 and row["all, PSS MiB"] > 0 for row in found["loaded"])


@pytest.mark.slow
def test_two_small_ranks_take_steps_by_all_means(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(SPEED))
    script = importlib.import_module("gradients")
    out = tmp_path / "found.json"
    monkeypatch.setattr(
        sys, "argv", ["gradients.py", "--quick", "--rounds", "1", "--optim", "adamw", "--out", str(out)]
    )
    script.main()
    found = json.loads(out.read_text())
    collectives = {
        way: sum(of["collectives"].values()) for way, of in found["steps"]["adamw"]["counts"].items()
    }
    assert 0 < collectives["DDP"] < collectives["sum"]
    assert set(found["MB per rank"]) == {"DDP", "FSDP2"}


def test_a_small_peer_takes_the_steps_that_we_take(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(SPEED))
    script = importlib.import_module("peers")
    out = tmp_path / "found.json"
    asked = ["--quick", "--images", "2", "--rounds", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["peers.py", *asked])
    script.main()
    rows = json.loads(out.read_text())["rows"]
    works = [row["work"].partition(",")[0] for row in rows if row["precision"] == "fp32"]
    assert works == ["training step", "training step", "greedy", "beam 5", "features"]
    assert all(row["peer"] == "VisionEncoderDecoder" and row["ratio"]["median"] > 0 for row in rows)
    shares = [row["share_of_matrix_speed"] for row in rows[:5]]
    assert [share is None for share in shares] == [False, False, True, True, False]
    assert all(share > 0 for found in shares if found for share in found.values())


@pytest.mark.slow
def test_photos_are_cached_trained_on_and_captioned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(SPEED))
    monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path / "cache"))
    script = importlib.import_module("photos")
    out = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["photos.py", "--quick", "--out", str(out)])
    script.main()
    found = json.loads(out.read_text())
    assert found["features"]["images"] < 16 and found["features"]["ratio"]["timm, fp32"]["median"] > 0
    few, all_words = found["words"]
    assert few["words"] < all_words["words"] and few["step_seconds"] > 0 < all_words["step_peak_mib"]
    assert all(rate > 0 for rate in all_words["images_per_second"].values())
