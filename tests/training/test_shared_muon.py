"""Muon's work shared among ranks: the results of one rank, whoever does what, and about as much work for each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.rank_processes import together
from hypothesis import given, settings
from hypothesis import strategies as st

from easycap.training import muon
from easycap.training.distributed import init_distributed
from easycap.training.muon import orthogonalize
from easycap.training.shared_muon import _rounds, owners, share_rows, share_whole

# Odd numbers of rows, one with fewer rows than ranks, and two of equal shape.
SHAPES = [(8, 8), (1, 5), (7, 3), (8, 8), (5, 20)]


def matrices() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape) for shape in SHAPES]


@pytest.mark.parametrize("at_once", [1, 40, 2**20])
def test_two_ranks_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(muon, "has_bf16", lambda device: False)

    def work() -> None:
        with init_distributed() as ranks:
            parts = [m[ranks.rank * -(-len(m) // 2) :][: -(-len(m) // 2)] for m in matrices()]
            rows = share_rows(parts, [len(m) for m in matrices()], orthogonalize, at_once=at_once)
            whole = share_whole(matrices(), orthogonalize)
            one = share_whole(matrices()[:1], orthogonalize)  # a rank has nothing to do
            torch.save((rows, whole, one), tmp_path / str(ranks.rank))

    assert together(work, work) == [0, 0]
    (above, first, one), (below, second, _) = (torch.load(tmp_path / str(rank)) for rank in range(2))
    expected = orthogonalize(matrices())
    for number, matrix in enumerate(expected):
        assert torch.equal(first[number], second[number])
        torch.testing.assert_close(first[number], matrix, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(torch.cat([above[number], below[number]]), matrix, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(one[0], expected[0], atol=1e-5, rtol=1e-4)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 64), st.integers(1, 64)), min_size=1, max_size=30),
    world_size=st.integers(1, 8),
)
@settings(max_examples=100, deadline=None)
def test_no_rank_has_much_more_work_than_the_others(sizes: list[tuple[int, int]], world_size: int) -> None:
    costs = [rows * columns * min(rows, columns) for rows, columns in sizes]
    work = [0] * world_size
    for cost, owner in zip(costs, owners(sizes, world_size), strict=True):
        work[owner] += cost
    assert max(work) <= 4 / 3 * max(max(costs), sum(costs) / world_size) + max(costs) / 3


@given(sizes=st.lists(st.integers(1, 50), max_size=30), limit=st.integers(1, 100))
@settings(max_examples=100, deadline=None)
def test_rounds_take_all_in_order_and_no_more_than_their_limit(sizes: list[int], limit: int) -> None:
    found = _rounds(sizes, limit)
    assert [i for start, end in found for i in range(start, end)] == list(range(len(sizes)))
    assert all(end - start == 1 or sum(sizes[start:end]) <= limit for start, end in found)
