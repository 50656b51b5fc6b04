"""Self-critical training as whole runs: from another run's weights, on every vocabulary, with its guards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.tiny_config import TINY, try_out
from helpers.whole_runs import metrics, read, run, settings
from safetensors.torch import load_file

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.tasks.preflight import about_rewards
from easycap.training.train_state import TrainState
from easycap.training.trainer import Trainer
from easycap.training.validation import Validation, Validator, warnings_of


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> Path:
    """A run with cross entropy to begin with."""
    patch = pytest.MonkeyPatch()
    patch.setenv("EASYCAP_CACHE", str(scenes_cache))
    path = run(tmp_path_factory.mktemp("first") / "run")
    patch.undo()
    return path


def test_it_goes_on_from_another_runs_weights_and_mixes_rewards(first: Path, tmp_path: Path) -> None:
    words = ["objective=scst", f"init_from={first}", "+objective.rewards.truth=0.5"]
    path = run(tmp_path / "second", *words, "objective.rows_per_pass=7", "objective.cross_entropy=0.1")
    validated = [line for line in metrics(path) if "val/loss" in line]
    assert [line["step"] for line in validated] == [0, 6]
    start = next(line for line in reversed(metrics(first)) if "val/loss" in line)
    assert all(validated[0][key] == value for key, value in start.items() if key.startswith("val/"))
    assert {"val/bad_endings", "val/repeating_captions", "val/words_per_caption"} < validated[1].keys()
    assert (path / "samples" / "epoch-000.json").is_file()
    trained = [line for line in metrics(path) if "train/reward" in line]
    assert len(trained) == 6
    for line in trained:
        parts = line["train/reward/CIDEr-D"] + 0.5 * line["train/reward/truth"]
        assert line["train/reward"] == pytest.approx(parts, rel=1e-4)
        assert 0 < line["train/words_per_sample"] <= 20 and line["train/seconds_reward"] > 0
    assert read(path, "result.json")["scores"]["test"]["CIDEr-D"]["value"] >= 0
    signature = read(path, "result.json")["objective"]
    assert (
        signature.startswith("scst|samples:5|baseline:others|xe:0.1|") and "|eos:yes + 0.5 truth" in signature
    )


IN_STAGES = ["objective=xe_then_scst", "trainer.patience=1", "trainer.epochs=5", "objective.num_samples=2"]


@pytest.fixture
def never_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every validation scores worse than the one before."""
    values = iter(range(10_000, 0, -1))
    original = Validator._scored_captions

    def scored(self: Validator, *args: object) -> tuple:
        captions, scores, health = original(self, *args)
        return captions, scores | {"CIDEr-D": 1e-4 * next(values)}, health

    monkeypatch.setattr(Validator, "_scored_captions", scored)


def test_one_run_goes_from_cross_entropy_to_rewards(tmp_path: Path, monkeypatch, never_better) -> None:
    begun, compared_with = {}, {}
    original = Trainer.begin_next_stage

    def look(self: Trainer) -> bool:
        had_moments, going_on = self.optimization.has_state, original(self)
        begun[going_on] = (had_moments, self.optimization.has_state, self.model.state_dict())
        compared_with[going_on] = self.state.stage_start_metrics
        if going_on:
            best = load_file(tmp_path / "run/checkpoints/best/model.safetensors")
            assert all(torch.equal(begun[True][2][name], tensor) for name, tensor in best.items())
        return going_on

    monkeypatch.setattr(Trainer, "begin_next_stage", look)
    path = run(tmp_path / "run", *IN_STAGES)
    trained = [line for line in metrics(path) if "train/loss" in line]
    assert [line["step"] for line in trained if "train/reward" not in line] == list(range(1, 13))
    rewarded = [line for line in trained if "train/reward" in line]
    assert [line["step"] for line in rewarded] == list(range(13, 19))
    assert {line["train/lr_factor"] for line in rewarded} == {0.1}
    assert begun[True][:2] == (True, False) and begun.keys() == {True, False}
    best = next(line for line in metrics(path) if "val/loss" in line)
    assert compared_with[True] == pytest.approx(
        {key[4:]: value for key, value in best.items() if key.startswith("val/")}
    )
    result = read(path, "result.json")
    assert "ended after step 18 of 30" in result["ended_early"] and result["objective"].startswith("scst|")


def test_a_run_killed_after_the_change_goes_on_to_the_same_numbers(
    tmp_path: Path, monkeypatch, never_better
) -> None:
    whole, path = run(tmp_path / "whole", *IN_STAGES), tmp_path / "run"
    original = Trainer.train_step

    def dying(self: Trainer, batches: list) -> dict:
        if self.state.step == 15:
            raise KeyboardInterrupt
        return original(self, batches)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_step", dying)
        run(path, *IN_STAGES)
    run(path, *IN_STAGES, f"resume={path}")
    losses = [[line["train/loss"] for line in metrics(one) if "train/loss" in line] for one in (whole, path)]
    assert len(losses[0]) == 18 and losses[0] == losses[1]


def test_rewards_that_buy_bad_endings_are_warned_about() -> None:
    first = {"CIDEr-D": 0.80, "bad_endings": 0.01, "loss": 2.0, "loss_of_shuffled_images": 3.0}
    captions = {str(i): str(i) for i in range(100)}

    def found(**values: float) -> list[str]:
        state = TrainState(step=1000, stage_start_metrics=first)
        return list(warnings_of(Validation(first | values, captions), state, "CIDEr-D").values())

    [sentence] = found(**{"CIDEr-D": 0.84, "bad_endings": 0.12})
    assert "rose from 80.0 to 84.0" in sentence and "from 1.0% to 12.0%" in sentence
    assert not found(**{"CIDEr-D": 0.84, "bad_endings": 0.02})
    assert not found(**{"CIDEr-D": 0.79, "bad_endings": 0.12})


def test_that_the_image_is_ignored_is_judged_once_the_model_had_a_chance() -> None:
    values = {"CIDEr-D": 0.1, "loss": 3.0, "loss_of_shuffled_images": 3.001}

    def warned(step: int, loss_before: float | None) -> bool:
        best = {} if loss_before is None else {"loss": loss_before}
        state = TrainState(step=step, stage_start_metrics=values, best_metrics=best)
        return "image ignored" in warnings_of(Validation(values, {"a": "x", "b": "y"}), state, "CIDEr-D")

    assert not warned(60, None) and not warned(60, 4.0)
    assert warned(60, 3.02), "the loss has stopped falling"
    assert warned(300, None) and warned(300, 4.0)


def test_rewards_from_random_weights_are_warned_about() -> None:
    [(_, text)] = about_rewards(settings("objective=scst"))
    assert "starts from random weights" in text
    assert not list(about_rewards(settings("objective=scst") | {"init_from": "somewhere"}))
    assert not list(about_rewards(settings("objective=xe_then_scst")))


def test_savings_that_do_not_reach_rewarded_captions_are_warned_about() -> None:
    both = ["trainer.gradient_checkpointing=true", "trainer.compile=true"]
    assert not list(about_rewards(settings(*both)))
    [_, (_, checkpointing), (_, compiling)] = about_rewards(settings("objective=scst", *both))
    assert (
        "does not reach the decoder while captions are rewarded: use objective.rows_per_pass" in checkpointing
    )
    assert "trainer.compile=true has no effect on steps in which captions are rewarded" in compiling


def test_going_over_needs_patience() -> None:
    with pytest.raises(ValueError, match="xe_first=true .* set trainer.patience"):
        try_out(settings("objective=xe_then_scst"))


def test_hard_attention_is_refused() -> None:
    kept = [word for word in TINY if not word.startswith("decoder.")]
    words = ["decoder=attention_lstm", "decoder.attention=hard", "objective=scst"]
    with pytest.raises(ValueError, match="objective=scst cannot be combined with decoder.attention=hard"):
        try_out(check(compose([*kept, *words])[0]))


def test_a_reward_that_is_not_measured_ends_the_run_before_it_trains(first: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'truht' is not measured; did you mean 'truth'"):
        run(tmp_path / "run", "objective=scst", f"init_from={first}", "+objective.rewards.truht=1.0")
    assert try_out(settings("objective=scst")) is None
