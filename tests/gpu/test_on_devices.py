"""Every decoder learns, decodes and is rewarded on a GPU as on a CPU; optimisers move weights alike."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from helpers.devices import DEVICES, GPU, full_precision, waits
from helpers.tiny_captioners import Letters, batch_of, captioner_of
from helpers.tiny_decoders import VARIANTS
from helpers.tiny_vocabularies import tiny_vocabulary
from helpers.whole_runs import settings
from torch import nn

from easycap.config.instantiate import build, special_ids
from easycap.config.schema import option_from_text
from easycap.models.captioner import Captioner
from easycap.objectives.scst import Baseline
from easycap.registry import names
from easycap.training.distributed import SINGLE_PROCESS
from easycap.training.hardware import has_bf16
from easycap.training.step import TrainStep
from easycap.types import Batch, Objective, Vocabulary

DECODERS = [*names("decoder"), *VARIANTS]
STEPS = 15
# Of a loss of about 5; 8 and 11 bits of precision.
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 1e-2}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    with full_precision():
        yield torch.device(request.param)


@pytest.fixture
def words() -> Vocabulary:
    return tiny_vocabulary("word")


def without_dropout(captioner: Captioner) -> Captioner:
    for module in captioner.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return captioner


@cache
def configured(*overrides: str) -> dict[str, Any]:
    return settings(*overrides)


def step_of(captioner: Captioner, objective: Objective, device: torch.device, *overrides: str) -> TrainStep:
    config = configured("optim=adamw", "optim.lr=1e-2", *overrides)
    return TrainStep(
        build("trainer", config["trainer"]),
        model=captioner,
        objective=objective,
        optimization=build("optim", config["optim"])(captioner, lambda step: 1.0),
        pad_id=objective.pad_id,
        device=device,
        ranks=SINGLE_PROCESS,
    )


def cross_entropy(words: Vocabulary) -> Objective:
    return build("objective", option_from_text("objective", "xe"), **special_ids(words))


def rewarded(words: Vocabulary, **changes: object) -> Objective:
    chosen = option_from_text("objective", "scst") | changes
    given = {"vocabulary": words, "make_rewards": lambda weights, eos: Letters(), **special_ids(words)}
    return build("objective", chosen, **given)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_learns_in_every_precision(
    name: str, precision: str, device: torch.device, words: Vocabulary
) -> None:
    if name.startswith("lstm") and device.type == "cpu" and precision != "fp32":
        supported = {"bf16": has_bf16(device), "fp16": torch.ops.mkldnn._is_mkldnn_fp16_supported()}
        if not supported[precision]:
            pytest.skip(f"torch's LSTM needs a processor with instructions for {precision}")
    batch, objective = batch_of(words), cross_entropy(words)
    expected = float(objective(without_dropout(captioner_of(name, words)), batch)[1]["loss"])
    captioner = without_dropout(captioner_of(name, words).to(device))
    take = step_of(captioner, objective, device, f"trainer.precision={precision}")
    losses = [take([batch], step).values["loss"] for step in range(STEPS)]
    assert losses[0] == pytest.approx(expected, abs=TOLERANCE[precision])
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", DECODERS)
def test_a_step_waits_once(
    name: str, device: torch.device, words: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU, what counts is the number of words, which a GPU is not waited for; its numbers come as a list."""
    monkeypatch.setattr("easycap.models.decoders.causal_lm.can_pack", lambda lm: False)  # as on a GPU
    monkeypatch.setattr("easycap.models.captioner.can_skip_padding", lambda *asked: False)
    take = step_of(captioner_of(name, words).to(device), cross_entropy(words), device)
    one = batch_of(words)
    twice = [torch.cat([tensor, tensor]) for tensor in (one.input_ids, one.targets, one.rows)]
    batch = Batch(one.image_ids, one.inputs, *twice)
    take([batch], 0)
    assert waits(lambda: take([batch], 1), device) == 1


@pytest.mark.parametrize("method", ["greedy", "beam", "diverse_beam"])
@pytest.mark.parametrize("name", DECODERS)
def test_captions_are_those_of_double_precision(
    name: str, method: str, device: torch.device, words: Vocabulary
) -> None:
    batch = batch_of(words)
    generate = build("decoding", option_from_text("decoding", method), vocabulary=words)

    def generated(captioner: Captioner, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            return generate(captioner.decoder, captioner.build_memory(batch.inputs))

    found = generated(captioner_of(name, words).to(device).eval(), batch.to(device))
    before = torch.get_default_dtype()
    captioner = captioner_of(name, words).double().eval()
    torch.set_default_dtype(torch.float64)
    try:
        expected = generated(captioner, batch)
    finally:
        torch.set_default_dtype(before)
    assert found.words.tolist() == expected.words.tolist()
    assert found.scores.tolist() == pytest.approx(expected.scores.tolist(), abs=1e-3)


def test_samples_are_drawn_on_the_device(device: torch.device, words: Vocabulary) -> None:
    captioner, batch = captioner_of("causal_lm", words).to(device).eval(), batch_of(words).to(device)
    drawn = []
    for _ in range(2):
        option = option_from_text("decoding", "sample,num_samples=8,top_p=0.95", seed=0)
        sample = build("decoding", option, vocabulary=words)
        with torch.no_grad():
            drawn.append(sample(captioner.decoder, captioner.build_memory(batch.inputs)).words)
    assert drawn[0].device.type == device.type and len(set(map(tuple, drawn[0].tolist()))) > 1
    assert torch.equal(*drawn)


@pytest.mark.parametrize("baseline", list(Baseline))
@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_is_rewarded(
    name: str, baseline: Baseline, device: torch.device, words: Vocabulary
) -> None:
    captioner = captioner_of(name, words).to(device)
    objective = rewarded(words, baseline=baseline, rows_per_pass=3, cross_entropy=0.1)
    take = step_of(captioner, objective, device)
    before = [p.detach().clone() for p in captioner.parameters()]
    values = take([batch_of(words)], 0).values
    moved = [not torch.equal(p, old) for p, old in zip(captioner.parameters(), before, strict=True)]
    assert all(moved) and values["reward"] > 0 and values["cross_entropy"] > 0
    assert all(p.isfinite().all() for p in captioner.parameters())


@pytest.mark.parametrize("optim", names("optim"))
def test_optimisers_move_weights_as_on_a_cpu(optim: str, device: torch.device, words: Vocabulary) -> None:
    """The fused AdamW too; Muon orthogonalises in bfloat16 where the device has it."""

    def trained(device: torch.device) -> list[torch.Tensor]:
        captioner = captioner_of("causal_lm", words).to(device)
        optimization = build("optim", configured(f"optim={optim}")["optim"])(captioner, lambda step: 1.0)
        for step in range(3):
            for number, parameter in enumerate(captioner.parameters()):
                noise = torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(100 * step + number)
                )
                parameter.grad = noise.to(device)
            optimization.step(step)
        return [p.detach().cpu() for p in captioner.parameters()]

    initial = [p.detach() for p in captioner_of("causal_lm", words).parameters()]
    for start, ours, expected in zip(initial, trained(device), trained(torch.device("cpu")), strict=True):
        off, moved = (ours - expected).abs().max(), (expected - start).abs().max()
        assert moved > 0 and off <= (0.05 if optim == "muon" else 1e-4) * moved


@pytest.mark.parametrize("device", [GPU], indirect=True)
def test_batches_for_a_gpu_are_page_locked(device: torch.device, words: Vocabulary) -> None:
    torch.zeros(1, device=device)
    batch = next(
        iter(torch.utils.data.DataLoader([0], collate_fn=lambda _: batch_of(words), pin_memory=True))
    )
    assert all(t.is_pinned() for t in (batch.inputs.images, batch.input_ids, batch.targets, batch.rows))


def test_the_loader_finds_how_to_lock_a_batch(words: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's loader leaves what has no method `pin_memory` where it is, without a word."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 0)
    batch = batch_of(words)
    locked = torch.utils.data._utils.pin_memory.pin_memory(batch)
    for before, after in (
        (batch.inputs.images, locked.inputs.images),
        (batch.input_ids, locked.input_ids),
        (batch.targets, locked.targets),
        (batch.rows, locked.rows),
    ):
        assert torch.equal(before, after) and after is not before
