"""Self-critical training as whole runs: from another run's weights, on every vocabulary, with its guards."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_train import metrics, read, run, settings
from tiny import TINY

from easycap.build import rehearse
from easycap.config import check
from easycap.launch import compose


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


def test_hard_attention_is_refused() -> None:
    kept = [word for word in TINY if not word.startswith("decoder.")]
    words = ["decoder=attention_lstm", "decoder.attention=hard", "objective=scst"]
    with pytest.raises(ValueError, match="objective=scst does not go with decoder.attention=hard"):
        rehearse(check(compose([*kept, *words])[0]))


def test_a_reward_that_is_not_measured_ends_the_run_before_it_trains(first: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'truht' is not measured; did you mean 'truth'"):
        run(tmp_path / "run", "objective=scst", f"init_from={first}", "+objective.rewards.truht=1.0")
    assert rehearse(settings("objective=scst")) is None
