"""Muon: what orthogonalising does to singular values, and that its steps are those of torch's own Muon."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import _muon

from easycap.training import muon
from easycap.training.muon import MuonOptimizer, orthogonalize

SHAPES = [(8, 8), (8, 11), (11, 8), (8, 40), (40, 8), (1, 5), (5, 1)]
MUON = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2}


@pytest.fixture(autouse=True)
def in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor without bfloat16, whatever this one has."""
    monkeypatch.setattr(muon, "has_bf16", lambda device: False)


def in_double_precision(matrix: torch.Tensor) -> torch.Tensor:
    """One matrix by the formula of the post, step by step."""
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("shape", [*SHAPES, (64, 64), (192, 1152), (512, 128)])
def test_the_iteration_is_the_formula_to_the_last_digits(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    assert difference(orthogonalize([matrix])[0], in_double_precision(matrix)) < 2e-5


@given(
    rows=st.integers(1, 24),
    columns=st.integers(1, 96),
    scale=st.floats(1e-5, 1e5),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_singular_values_end_in_the_known_band(rows: int, columns: int, scale: float, seed: int) -> None:
    """Those that were at least a hundredth of the norm: smaller ones have not got there after five iterations."""
    torch.manual_seed(seed)
    matrix = scale * torch.randn(rows, columns)
    before = torch.linalg.svdvals(matrix) / matrix.norm()
    after = torch.linalg.svdvals(orthogonalize([matrix])[0])
    assert after.max() < 1.25
    assert after[: int((before > 0.01).sum())].min() > 0.65


@given(
    shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_together_is_one_by_one(shapes: list[tuple[int, int]], seed: int) -> None:
    torch.manual_seed(seed)
    matrices = [torch.randn(shape) for shape in shapes]
    together = orthogonalize(matrices)
    for matrix, found in zip(matrices, together, strict=True):
        assert found.shape == matrix.shape
        assert difference(found, orthogonalize([matrix])[0]) < 2e-5


@pytest.mark.parametrize(("power", "tolerance"), [(0, 1e-5), (1, 5e-4), (4, 2e-3)])
def test_iterating_on_the_gram_matrix_keeps_enough_digits(power: int, tolerance: float) -> None:
    """Also where singular values fall as k^-power, whose squares are beyond single precision."""
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(size, 128).double())[0] for size in (128, 512))
    matrix = left * torch.arange(1, 129) ** -float(power) @ right.T
    x = (matrix / matrix.norm()).float()
    assert difference(muon._iterate_on_gram(x[None])[0], in_double_precision(matrix)) < tolerance
    assert difference(muon._iterate(x[None])[0], in_double_precision(matrix)) < 1e-4


def test_a_zero_matrix_stays_zero_and_is_finite_beside_others() -> None:
    zero, other = torch.zeros(4, 16), torch.randn(4, 16)
    found = orthogonalize([zero, other])
    assert not found[0].any() and torch.isfinite(found[1]).all()


def test_bfloat16_is_taken_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = torch.randn(16, 64)
    single = orthogonalize([matrix])[0]
    monkeypatch.setattr(muon, "has_bf16", lambda device: True)
    half = orthogonalize([matrix])[0]
    assert half.dtype == torch.float32
    assert torch.equal(half, half.bfloat16().float()) and not torch.equal(single, single.bfloat16().float())
    theirs = _muon._zeropower_via_newtonschulz(matrix, (3.4445, -4.7750, 2.0315), 5, 1e-7)
    assert difference(half, theirs.float()) < 0.03


def pair(shapes: list[tuple[int, ...]]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Tensors for ours, and the same as matrices for torch's."""
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    return ours, [nn.Parameter(p.detach().flatten(1).clone()) for p in ours]


def step(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    for param in params:
        param.grad = torch.randn(param.numel(), generator=generator).view(param.shape)
    optimizer.step()


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's Muon without its rounding to bfloat16."""
    monkeypatch.setattr(
        _muon, "_zeropower_via_newtonschulz", lambda grad, *rest: in_double_precision(grad).float()
    )


@pytest.mark.usefixtures("exact")
def test_steps_are_those_of_torchs_muon() -> None:
    ours, theirs = pair([(4, 3, 3, 3), (6, 6), (6, 6), (6, 24), (24, 6)])
    mine = MuonOptimizer(ours, **MUON)
    other = torch.optim.Muon(theirs, **MUON, adjust_lr_fn="match_rms_adamw")
    for number in range(4):
        step(mine, ours, number)
        step(other, theirs, number)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.flatten(1), b, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("exact")
def test_a_state_of_torchs_muon_is_gone_on_from() -> None:
    """Checkpoints written when training used it."""
    ours, theirs = pair([(4, 3, 3, 3), (6, 6)])
    other = torch.optim.Muon(theirs, **MUON, adjust_lr_fn="match_rms_adamw")
    step(other, theirs, 0)
    mine = MuonOptimizer(ours, **MUON)
    mine.load_state_dict(copy.deepcopy(other.state_dict()))
    with torch.no_grad():
        for a, b in zip(ours, theirs, strict=True):
            a.copy_(b.view(a.shape))
    step(mine, ours, 1)
    step(other, theirs, 1)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.flatten(1), b, atol=1e-5, rtol=1e-4)


def test_a_convolution_in_channels_last_takes_the_same_step() -> None:
    ours, _ = pair([(8, 4, 3, 3)])
    other = nn.Parameter(ours[0].detach().clone(memory_format=torch.channels_last))
    step(MuonOptimizer(ours, **MUON), ours, 0)
    step(MuonOptimizer([other], **MUON), [other], 0)
    assert torch.equal(ours[0], other)
