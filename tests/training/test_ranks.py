"""Several ranks, as forked processes on one CPU: the same numbers as one rank, and no rank waits for a dead one."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from helpers.interrupted_runs import left_behind, run
from helpers.rank_processes import together
from helpers.waiting import wait_for
from safetensors.torch import load_file
from torch import nn

import easycap.training.distributed as distributed
import easycap.training.heartbeat as heartbeat
from easycap.data.sampler import EpochSampler
from easycap.errors import OutOfTime
from easycap.models.decoders.reinforce import AttentionReinforce, Cost
from easycap.train import join_training
from easycap.training.place import Place, place
from easycap.training.trainer import Trainer


def run_together(path: Path, *overrides: str) -> Path:
    assert together(lambda: run(path, *overrides), join_training) == [0, 0]
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> dict[str, Any]:
    """What two ranks with dropout leave behind."""
    patch = pytest.MonkeyPatch()
    patch.setenv("EASYCAP_CACHE", str(scenes_cache))
    kept = left_behind(run_together(tmp_path_factory.mktemp("pair") / "run"))
    patch.undo()
    return kept


def test_two_ranks_give_the_losses_of_one(tmp_path: Path) -> None:
    two = left_behind(run_together(tmp_path / "two", "decoder.dropout=0"))
    one = left_behind(run(tmp_path / "one", "decoder.dropout=0"))
    assert [line.keys() for line in two["metrics"]] == [line.keys() for line in one["metrics"]]
    for ours, theirs in zip(two["metrics"], one["metrics"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    assert two["captions"] == one["captions"] and two["folders"] == ["best", "last"]
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    assert result["environment"]["ranks"] == 2


def test_two_ranks_give_a_tag_model_the_losses_of_one(tmp_path: Path) -> None:
    words = ["task=tags", "tagger=cnn", "tagger.dropout=0", "tag_vocab=data", "tag_vocab.min_count=1"]
    folders = run_together(tmp_path / "two", *words), run(tmp_path / "one", *words)
    losses, results = [], []
    for folder in folders:
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        losses.append([line.get("train/loss", line.get("val/loss")) for line in lines])
        results.append(json.loads((folder / "result.json").read_text()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert results[0]["scores"]["test"]["mAP"] == pytest.approx(results[1]["scores"]["test"]["mAP"])


def test_a_rank_that_dies_ends_the_run_which_goes_on_to_the_same_bits(
    pair: dict[str, Any], tmp_path: Path, monkeypatch
) -> None:
    original = Trainer.train_step

    def dying(self: Trainer, batches: list) -> dict[str, float]:
        if self.state.step == 4 and self.ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", dying)
        started = time.monotonic()
        assert together(lambda: run(tmp_path / "run"), join_training) == [3, -9]
        assert time.monotonic() - started < 50
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert status["status"] == "failed" and "rank 0 of 2 lost another rank" in status["error"]
    assert left_behind(run_together(tmp_path / "run")) == pair


def test_a_signal_to_one_rank_saves_all(pair: dict[str, Any], tmp_path: Path, monkeypatch) -> None:
    original = Trainer.train_step

    def signalled(self: Trainer, batches: list) -> dict[str, float]:
        if self.state.step == 4 and self.ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", signalled)
        assert together(lambda: run(tmp_path / "run"), join_training) == [3, 3]
    assert json.loads((tmp_path / "run/status.json").read_text())["status"] == "interrupted"
    assert left_behind(run_together(tmp_path / "run")) == pair


def test_one_rank_may_go_on_with_the_run_of_two(tmp_path: Path) -> None:
    assert together(lambda: run(tmp_path / "run", "trainer.max_hours=1e-9"), join_training) == [3, 3]
    kept = left_behind(run(tmp_path / "run", "trainer.max_hours=null"))
    assert [line["step"] for line in kept["metrics"] if "train/loss" in line] == [1, 2, 3, 4, 5, 6]


def test_a_rank_that_waits_for_a_silent_one_is_ended(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(heartbeat, "DEAD_SECONDS", 1.0)
    monkeypatch.setattr(heartbeat, "GRACE_SECONDS", 0.1)

    def wait() -> None:
        store, _, _ = next(dist.rendezvous("env://", 0, 2))
        with heartbeat.Heartbeat(store, 0, 2, (tmp_path / "why").write_text):
            signal.pause()

    def die() -> None:
        store, _, _ = next(dist.rendezvous("env://", 1, 2))
        with heartbeat.Heartbeat(store, 1, 2, print):
            wait_for(lambda: store.check(["alive/1"]))
            os.kill(os.getpid(), signal.SIGKILL)

    assert together(wait, die, seconds=20) == [1, -9]
    assert (tmp_path / "why").read_text() == "rank 0 ends because rank 1 died"


def test_no_thread_uses_the_store_when_the_ranks_part(monkeypatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)
    inside = threading.Event()

    class SlowStore(dict):
        def clone(self) -> SlowStore:
            return self

        def set(self, key: str, value: str) -> None:
            inside.set()
            time.sleep(0.3)
            inside.clear()

    with heartbeat.Heartbeat(SlowStore(), 0, 1, print):
        assert inside.wait(5)
    assert not inside.is_set()


def test_what_ranks_measure_of_their_parts_is_averaged() -> None:
    def average() -> None:
        with distributed.init_distributed() as group:
            norm, blind = nn.BatchNorm2d(1), nn.BatchNorm2d(1, track_running_stats=False)
            rule, resting = (
                AttentionReinforce(
                    reward_weight=1.0,
                    entropy_weight=0.0,
                    cost=Cost.caption,
                    max_length=5,
                    pad_id=0,
                    eos_id=2,
                )
                for _ in range(2)
            )
            resting.eval()
            for seen in (norm.running_mean, rule.baseline, resting.baseline):
                seen.fill_(group.rank)
            group.average_buffers(nn.ModuleList([norm, blind, rule, resting]))
            assert norm.running_mean.item() == 0.5 and norm.running_var.item() == 1.0
            assert rule.baseline.item() == 0.5 and resting.baseline.item() == group.rank

    assert together(average, average) == [0, 0]


def test_the_ranks_share_every_batch() -> None:
    def order(**changes: Any) -> list[int]:
        settings = {"seed": 1, "batch_size": 4, "number": 0, "count": 1}
        sampler = EpochSampler(22, **(settings | changes))
        sampler.start = 1
        assert len(list(sampler)) == len(sampler)
        return list(sampler)

    whole, first, second = order(), order(count=2), order(count=2, number=1)
    assert len(whole) == 16
    for batch in range(4):
        own = [part[2 * batch : 2 * batch + 2] for part in (first, second)]
        assert own[0] + own[1] == whole[4 * batch : 4 * batch + 4]
    parts = [distributed.Ranks(number, 3).shard(range(10), 2) for number in range(3)]
    assert parts == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5]]


def test_a_batch_that_cannot_be_shared_equally_is_refused(tmp_path: Path, capfd) -> None:
    assert together(lambda: run(tmp_path / "run", "trainer.batch_size=3"), join_training) == [3, 3]
    assert "trainer.batch_size=3 is the batch of all ranks together: it must be a multiple of 2" in (
        capfd.readouterr().out
    )


SLURM = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, Place(0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Place(3, 4, 1)),
        ({**SLURM, "MASTER_ADDR": "node1"}, Place(5, 8, 1)),
        ({**SLURM, "SLURM_PROCID": "0"}, Place(0, 1, 0)),  # the batch script itself
        ({**SLURM, "SLURM_NTASKS": "1", "MASTER_ADDR": "node1"}, Place(0, 1, 0)),
    ],
)
def test_the_launchers_variables_are_read(environment: dict[str, str], wanted: Place) -> None:
    assert place(environment) == wanted


def test_several_tasks_without_an_address_are_refused() -> None:
    with pytest.raises(ValueError, match="srun started 8 tasks but MASTER_ADDR is not set"):
        place({**SLURM, "SLURM_STEP_NUM_TASKS": "8"})


@pytest.mark.slow
def test_a_divided_run_leaves_the_files_of_one_rank_and_resumes_on_any_number(tmp_path: Path) -> None:
    model = ["decoder=gpt2_tiny", "decoder.width=16", "decoder.num_heads=2", "decoder.num_layers=2"]
    words = [*model, "decoder.dropout=0", "trainer.ema=0.9", "trainer.batch_size=4"]
    one = left_behind(run(tmp_path / "one", *words))
    two = left_behind(run_together(tmp_path / "two", *words, "trainer.shard=true"))
    mixed = tmp_path / "mixed"  # the first step on two ranks, the second on one, the rest on two
    shard = "trainer.shard=true"
    assert together(lambda: run(mixed, *words, shard, "trainer.max_hours=1e-9"), join_training) == [3, 3]
    with pytest.raises(OutOfTime):
        run(mixed)
    run_together(mixed, "trainer.max_hours=null")
    for found in (two, left_behind(mixed)):
        assert [line.keys() for line in found["metrics"]] == [line.keys() for line in one["metrics"]]
        for ours, theirs in zip(found["metrics"], one["metrics"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
        assert found["captions"] == one["captions"] and found["folders"] == one["folders"]
    for name in ("last/model", "last/training", "best/model"):
        files = [
            load_file(tmp_path / run / f"checkpoints/{name}.safetensors") for run in ("one", "two", "mixed")
        ]
        names = [{key: tensor.shape for key, tensor in file.items() if "rng" not in key} for file in files]
        assert names[0] == names[1] == names[2]


@pytest.mark.slow
def test_a_divided_run_that_is_killed_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch) -> None:
    words = ["decoder=gpt2_tiny", "decoder.width=16", "decoder.num_heads=2", "trainer.shard=true"]
    whole = left_behind(run_together(tmp_path / "whole", *words))
    original = Trainer.train_step

    def dying(self: Trainer, batches: list) -> Any:
        if self.state.step == 4 and self.ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", dying)
        assert together(lambda: run(tmp_path / "run", *words), join_training) == [3, -9]
    assert left_behind(run_together(tmp_path / "run")) == whole
