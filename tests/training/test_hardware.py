"""The precision that a training has: what the machine multiplies, what a run began with, what it is used in later."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.interrupted_runs import killed, run
from helpers.tiny_config import TINY, try_out

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.errors import UserError
from easycap.predict import load
from easycap.tasks.captioning import CaptioningTask
from easycap.train import create_task
from easycap.training import hardware
from easycap.training.checkpoint_files import read_progress
from easycap.training.hardware import (
    Precision,
    autocast,
    has_bf16,
    inference_precision,
    training_precision,
)
from easycap.training.trainer import Trainer

CPU = torch.device("cpu")
IMITATION = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


def pretend_bf16(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    """To the choice of a precision; what is computed in bf16 is right on any processor."""
    monkeypatch.setattr(hardware, "_cpu_has_bf16", lambda: native)


@pytest.fixture
def processor_with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("processor_with_bf16")
def test_a_processor_with_bf16_uses_it() -> None:
    assert has_bf16(CPU)
    assert training_precision(Precision.auto, CPU) is Precision.bf16
    assert training_precision(Precision.fp32, CPU) is Precision.fp32


@pytest.mark.usefixtures("processor_with_bf16")
@pytest.mark.parametrize(
    ("name", "limit", "native"),
    [
        ("ONEDNN_MAX_CPU_ISA", "AVX2", False),
        ("ONEDNN_MAX_CPU_ISA", "avx512_core", False),
        ("DNNL_MAX_CPU_ISA", "AVX512_CORE_VNNI", False),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16", True),
        ("ONEDNN_MAX_CPU_ISA", "DEFAULT", True),
    ],
)
def test_what_onednn_may_use_counts(
    name: str, limit: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, limit)
    assert has_bf16(CPU) is native


@pytest.mark.usefixtures("processor_with_bf16")
def test_what_torch_was_told_to_use_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not has_bf16(CPU)


@pytest.mark.parametrize("patch", ["", "torch.cpu.get_capabilities = lambda: {'avx512_bf16': True}"])
def test_an_imitated_avx2_machine_trains_in_fp32(patch: str) -> None:
    """In a process of its own, as torch reads these variables once; also where the processor says it has bf16."""
    program = f"""
import torch
{patch}
from easycap.training.hardware import Precision, training_precision
print(training_precision(Precision.auto, torch.device("cpu")).name)
training_precision(Precision.bf16, torch.device("cpu"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | IMITATION, capture_output=True, text=True
    )
    assert done.stdout == "fp32\n"
    assert (
        "trainer.precision=bf16 is only emulated on cpu, and slow; use trainer.precision=fp32" in done.stderr
    )


def test_a_model_trained_in_bf16_can_be_used_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_bf16(monkeypatch, False)
    assert inference_precision(Precision.bf16, CPU) is Precision.fp32
    assert inference_precision(Precision.fp16, torch.device("mps")) is Precision.fp32
    assert inference_precision(Precision.fp16, CPU) is Precision.fp16


def test_autocast_computes_in_the_precision_it_is_given() -> None:
    for precision, dtype in (
        (Precision.fp32, torch.float32),
        (Precision.bf16, torch.bfloat16),
        (Precision.fp16, torch.float16),
    ):
        with autocast(CPU, precision):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_a_run_goes_on_in_the_precision_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a machine that would have chosen another, to the same bits."""
    pretend_bf16(monkeypatch, True)
    whole = run(tmp_path / "whole", "trainer.precision=auto")
    cut = killed(tmp_path / "cut", Trainer, "train_step", 6, "trainer.precision=auto")
    pretend_bf16(monkeypatch, False)
    run(cut)
    found = [read_progress(path / "checkpoints" / "last") for path in (whole, cut)]
    assert [progress["precision"] for progress in found] == ["bf16", "bf16"]
    assert found[0]["best"] == found[1]["best"]
    assert "resuming in bf16, as this run started; cpu only emulates it" in caplog.text


def test_a_run_in_bf16_captions_on_a_machine_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_bf16(monkeypatch, True)
    path = run(tmp_path / "run", "trainer.precision=bf16")
    pretend_bf16(monkeypatch, False)
    photo = next((path / "samples" / "images").iterdir())
    captioner = load(path, device="cpu")
    assert captioner.task.pipeline.precision is Precision.fp32
    assert isinstance(captioner.caption(photo), str)


def test_bf16_is_refused_before_any_data_where_it_is_emulated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend_bf16(monkeypatch, False)
    monkeypatch.setattr(CaptioningTask, "read_data", lambda *_: pytest.fail("data was read"))
    with pytest.raises(ValueError, match="trainer.precision=bf16 is only emulated on cpu"):
        try_out(check(compose([*TINY, "trainer.precision=bf16"])[0]))


def test_auto_is_never_what_a_training_has() -> None:
    task = create_task(check(compose([*TINY, "trainer.precision=auto"])[0]))
    assert task.trainer_config.precision is not Precision.auto


@pytest.mark.parametrize(
    ("name", "devices", "message"),
    [
        ("cuda:99", 2, "device=cuda:99: this machine has 2 such devices, cuda:0 to cuda:1; use device=auto"),
        ("cuda:1", 1, "this machine has 1 such device, cuda:0; use"),
        ("cuda", 0, "torch finds no cuda device on this machine.*; use device=auto or device=cpu"),
        ("mps", 0, "no Apple GPU"),
        ("gpu", 0, "device='gpu' is not a device; allowed: auto, cpu, cuda"),
        ("meta", 0, "'meta' is not a device"),
        ("cuda:-1", 0, "'cuda:-1' is not a device"),
    ],
)
def test_a_device_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, devices: int, message: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: invalid device ordinal\nCUDA kernel errors might be ...")

    monkeypatch.setattr(torch, "empty", fails)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    with pytest.raises(UserError, match=message):
        hardware.pick_device(name)
