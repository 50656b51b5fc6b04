"""Gradients of two ranks are those of one that takes the batches of both: whatever is trained, divided or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.rank_steps import Case, model_of, on_one_rank, on_two_ranks

from easycap.training.hardware import Precision
from easycap.training.sharding import blocks_of

REGULAR = {"irregular": False, "shard": True}
CASES = {
    "cross entropy": Case(),
    "rewards": Case(objective="scst", steps=2),
    "tags": Case(objective="tags"),
    "accumulation": Case(accumulate=2, optim="sgd"),
    "a transformer": Case(decoder="transformer", steps=2),
    "an LSTM": Case(decoder="lstm", steps=2),
    "an encoder released": Case(released_at=1),
    "averages": Case(trainer={"ema": 0.5}, steps=2),
    "divided: cross entropy": Case(**REGULAR),
    "divided: rewards": Case(objective="scst", steps=2, **REGULAR),
    "divided: accumulation": Case(accumulate=2, optim="sgd", **REGULAR),
    "divided: an encoder released": Case(released_at=1, **REGULAR),
    "divided: averages": Case(trainer={"ema": 0.5}, steps=2, **REGULAR),
    "divided: gradient checkpointing": Case(trainer={"gradient_checkpointing": True}, steps=2, **REGULAR),
    "divided: fp16": Case(trainer={"precision": Precision.fp16}, optim="sgd", steps=2, **REGULAR),
}


@pytest.fixture(scope="module", autouse=True)
def exact_muon() -> Iterator[None]:
    """In bfloat16, Newton-Schulz turns a difference in the last digit of a gradient into 0.002 of a weight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("easycap.training.muon.has_bf16", lambda device: False)
        yield


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_two_ranks(tmp_path_factory.mktemp("pair"), CASES)


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-3, atol=5e-5, msg=key)


def states_of(found: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{number}.{index}.{key}": torch.as_tensor(value)
        for number, state in enumerate(found["moments"])
        for index, values in state["state"].items()
        for key, value in values.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_take_the_steps_of_one(pair: list[dict[str, Any]], name: str) -> None:
    case, (first, second) = CASES[name], [found[name] for found in pair]
    alone = on_one_rank(replace(case, shard=False))
    assert_close(first["weights"], alone["weights"])
    assert_close(first["averages"], alone["averages"])
    assert_close(states_of(first), states_of(alone))
    for ours, theirs in zip(first["logged"], alone["logged"], strict=True):
        ours, theirs = ({k: v for k, v in one.items() if "seconds" not in k} for one in (ours, theirs))
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)
    assert first["logged"][-1]["grad_norm"] == second["logged"][-1]["grad_norm"]
    if alone["loss"] is not None:
        assert first["loss"] == second["loss"] == pytest.approx(alone["loss"], rel=1e-4)
    if case.shard:
        assert second["weights"] is None  # the main rank alone has room for all
    else:
        assert all(torch.equal(second["weights"][key], tensor) for key, tensor in first["weights"].items())


def test_a_parameter_that_no_rank_used_stays_and_one_that_some_used_moves(pair: list[dict[str, Any]]) -> None:
    before = model_of(CASES["cross entropy"]).state_dict()
    for found in pair:
        after = found["cross entropy"]["weights"]
        assert torch.equal(after["never.weight"], before["never.weight"])  # no weight decay either
        assert not torch.equal(after["sometimes.weight"], before["sometimes.weight"])


@pytest.mark.parametrize("kind", ["", "divided: "])
def test_the_encoder_moves_once_it_is_released(pair: list[dict[str, Any]], kind: str) -> None:
    name, case = "encoder.stages.0.0.weight", CASES[f"{kind}an encoder released"]
    before = model_of(case).state_dict()[name]
    assert torch.equal(on_one_rank(replace(case, released_at=9, shard=False))["weights"][name], before)
    assert not torch.equal(pair[0][f"{kind}an encoder released"]["weights"][name], before)


@pytest.mark.parametrize("begins_divided", [True, False])
def test_a_training_goes_on_divided_or_not_where_another_ended(
    pair: list[dict[str, Any]], tmp_path: Path, begins_divided: bool
) -> None:
    longer = replace(CASES["divided: averages"], steps=3)
    whole = on_one_rank(replace(longer, shard=False))
    if begins_divided:  # on two ranks, and ends on one
        begin = pair[0]["divided: averages"]
        last = on_one_rank(replace(longer, shard=False), begin=begin, first=2)
    else:
        begin = on_one_rank(replace(longer, shard=False, steps=2))
        last = on_two_ranks(tmp_path, {"last": longer}, begin=begin, first=2)[0]["last"]
    assert_close(last["weights"], whole["weights"])
    assert_close(last["averages"], whole["averages"])


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ValueError, match="this decoder has no list of them: set trainer.shard=false"):
        blocks_of(model_of(Case(decoder="lstm")))
