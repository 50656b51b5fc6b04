"""Whole runs on a GPU, as on a CPU: precisions, decoding, rewards, the feature cache, compiling, two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from helpers.devices import DEVICES, SLOW_ON_CPU
from helpers.interrupted_runs import killed, run
from helpers.tiny_config import TINY
from helpers.whole_runs import metrics, read, run_or_resume

from easycap.predict import load
from easycap.training import distributed, hardware
from easycap.training.distributed import _backend
from easycap.training.place import Place
from easycap.training.trainer import Trainer

RUNS = {
    "fp32": [],
    "bf16": ["trainer.precision=bf16", "decoding=beam"],
    "fp16": [
        "trainer.precision=fp16",
        "decoding=diverse_beam",
        "decoding.num_beams=4",
        "decoding.num_groups=2",
    ],
    "muon": ["optim=muon", "trainer.ema=0.9", "trainer.accumulate=2"],
    "scst": ["objective=scst", "optim=adamw"],
    "feature cache": ["trainer.cache_features=true", "trainer.unfreeze_encoder_at_epoch=null"],
    "checkpointing": ["trainer.gradient_checkpointing=true", "trainer.workers=1"],
}


def losses(path: Path) -> list[float]:
    return [line["train/loss"] for line in metrics(path) if "train/loss" in line]


@pytest.mark.parametrize("device", SLOW_ON_CPU)
@pytest.mark.parametrize("overrides", RUNS.values(), ids=RUNS)
def test_a_run_trains_and_captions(
    overrides: list[str], device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "_cpu_has_bf16", lambda: True)  # right, if slow, without such instructions
    path = run_or_resume(tmp_path / "run", *overrides, f"device={device}", "trainer.epochs=3")
    result, status = read(path, "result.json"), read(path, "status.json")
    assert status["status"] == "completed"
    found = losses(path)
    assert "objective=scst" in overrides or sum(found[-3:]) < sum(found[:3])
    assert (
        bool(result["environment"]["gpu"]) == (device == "cuda") and result["cost"]["peak_memory_bytes"] > 0
    )
    photo = next((path / "samples" / "images").iterdir())
    assert isinstance(load(path, device=device).caption(photo), str)
    assert isinstance(load(path, device="cpu").caption(photo), str)


@pytest.mark.parametrize("device", SLOW_ON_CPU)
def test_a_compiled_run_has_the_losses_of_a_plain_one(device: str, tmp_path: Path) -> None:
    same = [f"device={device}", "decoder.dropout=0", "trainer.max_steps=4"]
    compiled = run_or_resume(tmp_path / "compiled", *same, "trainer.compile=true")
    plain = run_or_resume(tmp_path / "plain", *same)
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-2)


@pytest.mark.parametrize("device", DEVICES)
def test_a_killed_run_is_resumed_with_its_random_numbers(device: str, tmp_path: Path) -> None:
    """To the same bits on a CPU; sums on a GPU may be in another order, but dropout draws the same."""
    overrides = [f"device={device}", "decoder.dropout=0.3"]
    whole = run(tmp_path / "whole", *overrides)
    cut = run(killed(tmp_path / "cut", Trainer, "train_step", 5, *overrides))
    assert len(losses(cut)) == len(losses(whole))
    assert losses(cut) == pytest.approx(losses(whole), rel=0 if device == "cpu" else 1e-3)


@pytest.mark.parametrize("device", SLOW_ON_CPU)
def test_two_processes_on_one_device_have_the_losses_of_one(device: str, tmp_path: Path) -> None:
    overrides = [*TINY, f"device={device}", "decoder.dropout=0", "trainer.max_steps=6"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    }
    for folder, start in (("two", launch), ("one", [sys.executable, "-m"])):
        command = [*start, "easycap", "train", *overrides, f"hydra.run.dir={tmp_path / folder}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)
    assert json.loads((tmp_path / "two" / "result.json").read_text())["environment"]["ranks"] == 2


@pytest.mark.parametrize(
    ("gpus", "backend"),
    [
        (["a 0", "a 1"], "cpu:gloo,cuda:nccl"),
        (["a 0", "b 0"], "cpu:gloo,cuda:nccl"),
        (["a 0", "a 0"], "gloo"),
        (["a 0", ""], "gloo"),
        (["", ""], "gloo"),
    ],
)
def test_nccl_is_for_ranks_with_a_gpu_each(
    gpus: list[str], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = dist.HashStore()
    store.set("gpu/1", gpus[1])
    monkeypatch.setattr(distributed, "_own_gpu", lambda here: gpus[0])
    assert _backend(store, Place(0, 2, 0)) == backend


@pytest.mark.parametrize(("count", "numbers"), [(4, [0, 1, 2, 3]), (2, [0, 1, 0, 1]), (1, [0, 0, 0, 0])])
def test_ranks_share_gpus_if_there_are_fewer(
    count: int, numbers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert [hardware.local_gpu(Place(rank, 4, rank)) for rank in range(4)] == numbers


@pytest.mark.parametrize(
    ("name", "chosen"), [("cuda:1", [torch.device("cuda:1")]), ("cuda", []), ("cpu", [])]
)
def test_a_training_makes_its_gpu_the_default(
    name: str, chosen: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise page-locking would take memory of the first GPU, which another training may need."""
    found: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", found.append)
    hardware.make_default(torch.device(name))
    assert found == chosen
