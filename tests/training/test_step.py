"""A training step's options: averaged weights, fp16 with loss scaling, advice when the memory does not suffice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from helpers.interrupted_runs import killed, left_behind, run
from safetensors.torch import load_file
from torch import nn

from easycap.errors import UserError
from easycap.objectives.scst import SelfCritical
from easycap.training.average import AverageWeights
from easycap.training.hardware import Precision, training_precision
from easycap.training.memory import first_images
from easycap.training.optim import Muon
from easycap.training.scaling import ScaledOptimization
from easycap.training.step import TrainStep
from easycap.training.trainer import Trainer
from easycap.training.validation import Validator
from easycap.types import Batch, Inputs

MUON = {"matrix_lr": 0.1, "encoder_matrix_lr": 0.1, "momentum": 0.9, "lr": 0.1, "encoder_lr": 0.1}


class Model(nn.Module):
    """With a matrix for Muon in each part and vectors for AdamW."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 3)
        self.decoder = nn.Linear(3, 2)

    def forward(self) -> torch.Tensor:
        return self.decoder(self.encoder(torch.ones(1, 3))).square().sum()


def scaled(model: nn.Module, precision: Precision) -> ScaledOptimization:
    optimization = Muon(**MUON, weight_decay=0.0, betas=(0.9, 0.99), eps=1e-8)(model, lambda step: 1.0)
    return ScaledOptimization(optimization, model, device=torch.device("cpu"), precision=precision)


def weights_of(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


# ------------------------------------------------------------------------------------------- averages


def test_averages_follow_their_equation_and_frozen_weights_have_none() -> None:
    torch.manual_seed(0)
    model = Model()
    model.encoder.requires_grad_(False)
    average = AverageWeights(model, 0.5)
    expected = None
    for step in range(12):
        with torch.no_grad():
            model.decoder.weight.add_(torch.randn(2, 3))
        average.update(step)
        weight, decay = model.decoder.weight.detach().clone(), min(0.5, (1 + step) / (10 + step))
        expected = weight if expected is None else decay * expected + (1 - decay) * weight
    before = weights_of(model)
    with average.applied():
        assert torch.allclose(model.decoder.weight, expected, atol=1e-6)
        assert torch.equal(model.encoder.weight, before[0])
    assert all(torch.equal(a, b) for a, b in zip(weights_of(model), before, strict=True))
    assert average.averages.keys() == {"decoder.weight", "decoder.bias"}


def test_muon_still_moves_the_weights_after_averages_were_applied() -> None:
    torch.manual_seed(0)
    model, twin = Model(), Model()
    twin.load_state_dict(model.state_dict())
    both = [(model, scaled(model, Precision.fp32)), (twin, scaled(twin, Precision.fp32))]
    average = AverageWeights(model, 0.9)
    for step in range(3):
        for one, optimization in both:
            optimization.backward(one())
            optimization.apply(step)
        average.update(step)
        with average.applied():
            model()
    assert all(torch.equal(a, b) for a, b in zip(weights_of(model), weights_of(twin), strict=True))


def test_the_best_checkpoint_holds_averages_and_a_kill_does_not_change_them(tmp_path: Path) -> None:
    overrides = ["trainer.ema=0.9", "trainer.epochs=1"]
    whole = left_behind(run(tmp_path / "whole", *overrides))
    assert left_behind(run(killed(tmp_path / "run", Trainer, "train_step", 3, *overrides))) == whole
    best, last = (
        load_file(tmp_path / f"whole/checkpoints/{name}/model.safetensors") for name in ("best", "last")
    )
    kept = load_file(tmp_path / "whole/checkpoints/last/training.safetensors")
    name = "encoder.stages.0.0.weight"
    assert torch.equal(best[name], kept[f"average.{name}"]) and not torch.equal(best[name], last[name])


# ------------------------------------------------------------------------------------------------ fp16


def test_fp16_scales_the_loss_and_leaves_out_a_step_that_overflows() -> None:
    torch.manual_seed(0)
    model = Model()
    optimization = scaled(model, Precision.fp16)
    before, scale = weights_of(model), optimization.scaler.get_scale()
    optimization.backward(model() * 1e38)  # times the scale of 65,536: no number any more
    optimization.unscale()
    assert optimization.apply(0)["loss_scale"] == scale / 2
    assert all(torch.equal(a, b) for a, b in zip(weights_of(model), before, strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    optimization.backward(model())
    optimization.unscale()
    optimization.apply(1)
    assert all(not torch.equal(a, b) for a, b in zip(weights_of(model), before, strict=True))


def test_scaling_changes_no_step_that_does_not_overflow() -> None:
    torch.manual_seed(0)
    model, twin = Model(), Model()
    twin.load_state_dict(model.state_dict())
    for one, precision in ((model, Precision.fp32), (twin, Precision.fp16)):
        optimization = scaled(one, precision)
        for step in range(3):
            optimization.backward(one())
            optimization.unscale()
            optimization.apply(step)
    assert all(
        torch.allclose(a, b, atol=1e-6) for a, b in zip(weights_of(model), weights_of(twin), strict=True)
    )


def test_a_run_in_fp16_learns_what_fp32_learns_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    half = left_behind(run(tmp_path / "half", "trainer.precision=fp16"))
    assert (
        left_behind(run(killed(tmp_path / "run", Trainer, "train_step", 6, "trainer.precision=fp16"))) == half
    )
    single = left_behind(run(tmp_path / "single"))
    losses = [
        [line["train/loss"] for line in kept["metrics"] if "train/loss" in line] for kept in (half, single)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=5e-3) and losses[0] != losses[1]
    assert [line["train/loss_scale"] for line in half["metrics"] if "train/loss" in line] == [65536.0] * 6


def test_fp16_is_refused_where_it_was_never_tried() -> None:
    with pytest.raises(ValueError, match="trainer.precision=fp16 is not supported on mps; use fp32 or auto"):
        training_precision(Precision.fp16, torch.device("mps"))


# ---------------------------------------------------------------------------------------------- memory


def out_of_memory(kind: type[RuntimeError]) -> RuntimeError:
    return kind("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize(
    ("kind", "most", "advice"),
    [
        (RuntimeError, 2, "2 do, tried"),
        (torch.OutOfMemoryError, 1, "1 do, tried"),
        (torch.OutOfMemoryError, 0, "nor does one image"),
    ],
)
def test_out_of_memory_says_which_batch_was_tried_and_fits(
    tmp_path: Path, monkeypatch, kind: type[RuntimeError], most: int, advice: str
) -> None:
    import easycap.objectives.xe as xe

    original = xe.CrossEntropy.__call__

    def narrow(self, captioner, batch):
        if captioner.training and len(batch.image_ids) > most:
            raise out_of_memory(kind)
        return original(self, captioner, batch)

    monkeypatch.setattr(xe.CrossEntropy, "__call__", narrow)
    wanted = f"a batch of 4 images does not fit into the memory of cpu.*{advice}"
    if most:
        wanted += f" just now: trainer.batch_size={most} trainer.accumulate={8 // most} takes as large a step"
    with pytest.raises(ValueError, match=wanted):
        run(tmp_path / "run")


@pytest.mark.parametrize(
    ("most", "rows", "advice"),
    [
        (2, "null", "takes as large a step; or lower objective.rows_per_pass=null, the samples"),
        (
            0,
            "8",
            "nor does one image: lower objective.rows_per_pass=8, the samples .*, or choose a smaller model",
        ),
    ],
)
def test_rewarded_captions_have_a_setting_of_their_own_for_memory(
    tmp_path: Path, monkeypatch, most: int, rows: str, advice: str
) -> None:
    original = SelfCritical.__call__

    def narrow(self, captioner, batch):
        if captioner.training and len(batch.image_ids) > most:
            raise out_of_memory(RuntimeError)
        return original(self, captioner, batch)

    monkeypatch.setattr(SelfCritical, "__call__", narrow)
    with pytest.raises(
        ValueError, match=f"a batch of 4 images does not fit into the memory of cpu.*{advice}"
    ):
        run(tmp_path / "run", "objective=scst", f"objective.rows_per_pass={rows}")


def test_the_advice_takes_the_same_step(tmp_path: Path) -> None:
    ours = run(tmp_path / "a", "trainer.batch_size=2", "trainer.accumulate=4", "decoder.dropout=0")
    theirs = run(tmp_path / "b", "trainer.batch_size=4", "trainer.accumulate=2", "decoder.dropout=0")
    losses = [
        [line["train/loss"] for line in left_behind(path)["metrics"] if "train/loss" in line]
        for path in (ours, theirs)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_validation_that_does_not_fit_says_what_to_lower(tmp_path: Path, monkeypatch) -> None:
    def narrow(self, *args):
        raise out_of_memory(torch.OutOfMemoryError)

    monkeypatch.setattr(Validator, "__call__", narrow)
    with pytest.raises(ValueError, match="validation does not fit .* lower validation.batch_size"):
        run(tmp_path / "run")


def test_part_of_a_batch_keeps_captions_with_their_images() -> None:
    rows = torch.tensor([0, 0, 1, 2, 2])
    words = torch.arange(5)[:, None]
    batch = first_images(Batch(["a", "b", "c"], Inputs(torch.arange(3)), words, words + 1, rows), 2)
    assert (batch.image_ids, batch.rows.tolist(), batch.input_ids.flatten().tolist()) == (
        ["a", "b"],
        [0, 0, 1],
        [0, 1, 2],
    )


# --------------------------------------------------------------------------------------------- compile


def test_compiling_without_a_compiler_is_one_sentence(tmp_path: Path, monkeypatch) -> None:
    import torch._inductor.cpp_builder as builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(builder, "get_cpp_compiler", none)
    with pytest.raises(ValueError, match="trainer.compile=true needs a C\\+\\+ compiler"):
        run(tmp_path / "run", "trainer.compile=true")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_a_compiled_run_has_the_losses_of_a_plain_one(tmp_path: Path) -> None:
    compiled = run(tmp_path / "a", "trainer.compile=true", "trainer.max_steps=2", "decoder.dropout=0")
    plain = run(tmp_path / "b", "trainer.max_steps=2", "decoder.dropout=0")
    for ours, theirs in zip(left_behind(compiled)["metrics"], left_behind(plain)["metrics"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4)


# --------------------------------------------------------------------------------------- checkpointing


def test_a_run_with_gradient_checkpointing_measures_the_same(tmp_path: Path, caplog) -> None:
    saving = run(
        tmp_path / "a", "trainer.gradient_checkpointing=true", "decoder.dropout=0", "trainer.epochs=1"
    )
    plain = run(tmp_path / "b", "decoder.dropout=0", "trainer.epochs=1")
    for ours, theirs in zip(left_behind(saving)["metrics"], left_behind(plain)["metrics"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4)
    assert "this encoder has no gradient checkpointing" in caplog.text


def test_a_batch_of_one_image_that_cannot_be_normalised_is_explained(
    tmp_path: Path, scenes_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's own words for it are recognised, as it gives them today."""
    normalise = nn.BatchNorm1d(3)
    monkeypatch.setattr(TrainStep, "run", lambda self, batches, step: normalise(torch.ones(1, 3)))
    with pytest.raises(UserError, match="1 image: .* at least 2 images"):
        run(tmp_path / "run", "trainer.batch_size=1")
