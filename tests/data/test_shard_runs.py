"""Whole runs on tar shards: killed and resumed, on a server, evaluated where the shards have moved to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.interrupted_runs import Killed, left_behind
from helpers.tar_shards import serving, write_shard
from helpers.tiny_config import TINY
from omegaconf import OmegaConf

from easycap.commands.evaluate import main as evaluate
from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.data import sampler
from easycap.data.shards import shard_images
from easycap.train import train
from easycap.training.step import TrainStep

SETTINGS = [word for word in TINY if not word.startswith("data.")]
SETTINGS += ["data=webdataset", "vocab.min_count=1", "trainer.epochs=2", "trainer.batch_size=8"]
SETTINGS += ["trainer.checkpoint_every_steps=2", "decoder.dropout=0.1"]


def test_a_killed_run_continues_in_mid_epoch_and_reads_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(shard_images, "BLOCK_IMAGES", 5)
    monkeypatch.setattr(sampler, "WINDOW_ROWS", 10)
    for split, numbers in {"train": range(40), "val": range(100, 106), "test": range(200, 206)}.items():
        write_shard(tmp_path / "s" / f"{split}-0.tar", numbers)
    root = f"data.root={tmp_path / 's'}"
    train(check(compose([*SETTINGS, root])[0]), tmp_path / "whole", command="")

    original, calls = TrainStep.__call__, iter(range(1, 1000))

    def dies(*args: Any) -> Any:
        if next(calls) == 8:  # the third of five steps of the second epoch
            raise Killed
        return original(*args)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(TrainStep, "__call__", dies)
        train(check(compose([*SETTINGS, root])[0]), tmp_path / "killed", command="")
    with serving(tmp_path / "s") as server:
        patterns = {split: f"{split}-0.tar" for split in ("train", "val", "test")}
        stored = OmegaConf.load(tmp_path / "killed" / "config.yaml")
        moved = {"resume": str(tmp_path / "killed"), "data": {"root": server.url, **patterns}}
        moved |= {"trainer": {"workers": 2}}
        train(check(OmegaConf.merge(stored, moved)), tmp_path / "killed", command="")
        assert left_behind(tmp_path / "killed") == left_behind(tmp_path / "whole")
        before = json.loads((tmp_path / "killed" / "captions.test.json").read_text())
        shutil.rmtree(tmp_path / "s")
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    for split, numbers in {"train": range(40), "val": range(100, 106), "test": range(200, 206)}.items():
        write_shard(tmp_path / "moved" / f"{split}-0.tar", numbers)
    assert evaluate([str(tmp_path / "again"), f"data.root={tmp_path / 'moved'}"]) == 0
    assert json.loads((tmp_path / "again" / "captions.test.json").read_text()) == before
