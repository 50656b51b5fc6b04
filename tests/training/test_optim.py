"""Optimisers and schedules: which parameters go where, Muon on convolutions, the shape of every schedule."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from easycap.registry import lookup, names
from easycap.training.optim import SGD, AdamW, Muon, hidden_matrices
from easycap.training.schedule import cosine, linear, noam, step

ADAMW = {"lr": 1e-2, "encoder_lr": 1e-3, "weight_decay": 0.1, "betas": (0.9, 0.98), "eps": 1e-8}
MUON = {"matrix_lr": 1e-2, "encoder_matrix_lr": 2e-2, "momentum": 0.95}
SGD_SETTINGS = {"lr": 0.1, "encoder_lr": 1e-2, "momentum": 0.9, "weight_decay": 0.1}
SGD_SETTINGS |= {"decay_lstm_biases": False, "output_bias_factor": 1.0}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))
        self.embedding = nn.Embedding(7, 4)
        self.hidden = nn.Linear(4, 5)
        self.table = nn.Parameter(torch.randn(3, 4))
        self.output = nn.Linear(5, 7)

    def forward(self) -> torch.Tensor:
        seen = (
            self.encoder(torch.ones(1, 3, 3, 3)).flatten(1) + self.embedding.weight.sum(0) + self.table.sum(0)
        )
        return self.output(self.hidden(seen)).square().sum()


def test_hidden_matrices_leave_out_embeddings_tables_and_the_output_layer() -> None:
    model = Model()
    assert {id(p) for p in hidden_matrices(model)} == {id(model.encoder[0].weight), id(model.hidden.weight)}


@pytest.mark.parametrize(
    "make", [AdamW(**ADAMW), Muon(**MUON, **ADAMW), SGD(**SGD_SETTINGS)], ids=["adamw", "muon", "sgd"]
)
def test_every_parameter_moves_and_belongs_to_one_group(make) -> None:
    torch.manual_seed(0)
    model = Model()
    optimization = make(model, lambda step: 1.0)
    sizes = [p.numel() for o in optimization.optimizers for g in o.param_groups for p in g["params"]]
    assert sum(sizes) == sum(p.numel() for p in model.parameters())
    before = [p.clone() for p in model.parameters()]
    model().backward()
    optimization.step(0)
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_the_encoder_has_its_own_learning_rate_and_only_matrices_decay() -> None:
    model = Model()
    groups = AdamW(**ADAMW)(model, lambda step: 1.0).optimizers[0].param_groups
    rates = {id(p): (g["peak_lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert rates[id(model.encoder[0].weight)] == (1e-3, 0.1)
    assert rates[id(model.encoder[1].weight)] == (1e-3, 0.0)
    assert rates[id(model.hidden.weight)] == (1e-2, 0.1)
    assert rates[id(model.embedding.weight)] == rates[id(model.output.weight)] == (1e-2, 0.0)


def test_sgd_decays_all_matrices_and_no_vectors() -> None:
    model = Model()
    groups = SGD(**SGD_SETTINGS)(model, lambda step: 1.0).optimizers[0].param_groups
    rates = {id(p): (g["peak_lr"], g["weight_decay"], g["momentum"]) for g in groups for p in g["params"]}
    assert rates[id(model.encoder[0].weight)] == (1e-2, 0.1, 0.9)
    assert rates[id(model.encoder[1].weight)] == (1e-2, 0.0, 0.9)
    assert rates[id(model.embedding.weight)] == rates[id(model.output.weight)] == (0.1, 0.1, 0.9)


def test_an_lstms_matrices_are_hidden_ones() -> None:
    lstm = nn.LSTM(3, 4)
    assert {id(p) for p in hidden_matrices(lstm)} == {id(lstm.weight_ih_l0), id(lstm.weight_hh_l0)}


def test_frozen_parameters_stay() -> None:
    model = Model()
    model.encoder.requires_grad_(False)
    optimization = Muon(**MUON, **ADAMW)(model, lambda step: 1.0)
    before = model.encoder[0].weight.clone()
    model().backward()
    optimization.step(0)
    assert torch.equal(model.encoder[0].weight, before)
    model.encoder.requires_grad_(True)
    model().backward()
    optimization.step(1)
    assert not torch.equal(model.encoder[0].weight, before)


@pytest.mark.parametrize("name", names("schedule"))
def test_every_schedule_warms_up_and_never_exceeds_its_peak(name: str) -> None:
    extra = {"total_steps": 50, "final_factor": 0.1, "every_steps": 10, "factor": 0.5}
    schedule = lookup("schedule", name)
    wanted = {key: value for key, value in extra.items() if key in schedule.__annotations__}
    factor = schedule(warmup_steps=5, **wanted)
    values = [factor(s) for s in range(50)]
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(0 < value <= 1 for value in values)
    assert values[5:] == sorted(values[5:], reverse=True)


def test_schedules_end_where_they_should() -> None:
    assert cosine(warmup_steps=0, final_factor=0.1, total_steps=100)(100) == pytest.approx(0.1)
    assert cosine(warmup_steps=0, final_factor=0.0, total_steps=100)(50) == pytest.approx(0.5)
    assert linear(warmup_steps=0, final_factor=0.0, total_steps=100)(75) == pytest.approx(0.25)
    assert step(warmup_steps=0, every_steps=10, factor=0.5)(25) == 0.25
    papers = [512**-0.5 * min((s + 1) ** -0.5, (s + 1) * 100**-1.5) for s in range(300)]
    ours = [512**-0.5 * 100**-0.5 * noam(warmup_steps=100)(s) for s in range(300)]
    assert ours == pytest.approx(papers)
    assert not math.isnan(cosine(warmup_steps=5, final_factor=0.0, total_steps=3)(7))


@pytest.mark.parametrize("name", ["lr", "encoder_lr", "weight_decay"])
def test_negative_settings_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"optim.{name}=-1"):
        AdamW(**(ADAMW | {name: -1}))
