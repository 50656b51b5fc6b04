"""Training in stages: a run begins with the best weights and the words of another, and with nothing else of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.interrupted_runs import Killed, killed, left_behind, run
from helpers.tiny_config import TINY, try_out
from omegaconf import OmegaConf
from safetensors.torch import load_file

import easycap
from easycap.config.compose import compose
from easycap.config.init_from import differences, initial_run_config
from easycap.config.schema import check, check_stored, config_hash
from easycap.training.trainer import Trainer


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> Path:
    """A run whose encoder stayed frozen."""
    patch = pytest.MonkeyPatch()
    patch.setenv("EASYCAP_CACHE", str(scenes_cache))
    path = run(
        tmp_path_factory.mktemp("stages") / "first",
        "trainer.unfreeze_encoder_at_epoch=null",
        "trainer.epochs=1",
    )
    patch.undo()
    return path


def test_a_second_stage_begins_with_the_best_weights_and_the_words(
    first: Path, tmp_path: Path, monkeypatch, caplog
) -> None:
    begun = {}

    def look(self: Trainer, batches: list) -> dict[str, float]:
        begun.update({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
        begun["words"], begun["moments"] = len(self.checkpoints.vocabulary), self.optimization.has_state
        raise Killed

    monkeypatch.setattr(Trainer, "train_step", look)
    with pytest.raises(Killed):
        run(tmp_path / "second", f"init_from={first}", "data.train_images=16", "seed=5")
    stored = load_file(first / "checkpoints/best/model.safetensors")
    assert stored and all(torch.equal(begun[name], tensor) for name, tensor in stored.items())
    assert begun["words"] == json.loads((first / "result.json").read_text())["vocabulary"]["size"]
    assert not begun["moments"] and "random weights" not in caplog.text


def test_a_second_stage_goes_on_without_the_first(first: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    shutil.copytree(first, gone)
    whole = left_behind(run(tmp_path / "whole", f"init_from={gone}"))
    path = killed(tmp_path / "run", Trainer, "train_step", 5, f"init_from={gone}")
    shutil.rmtree(gone)
    assert left_behind(run(path)) == whole


def test_data_and_model_are_those_of_the_first_run_unless_asked_for(first: Path) -> None:
    """Nothing but the objective is named: the scenes, sizes and words of the first run stay."""
    before = check_stored(OmegaConf.load(first / "config.yaml"))
    config = check(
        compose([f"init_from={first}", "objective=scst", "data.train_images=7", "decoding=beam"])[0]
    )
    assert config["data"] == before["data"] | {"train_images": 7}
    assert config["decoding"]["name"] == "beam" and config["objective"]["name"] == "scst"
    for group in ("vocab", "encoder", "image_tokens", "decoder", "validation"):
        assert config[group] == before[group], group
    assert config["trainer"]["batch_size"] == 32  # the new run's own


def test_the_command_itself_takes_them(first: Path, tmp_path: Path) -> None:
    """In a process of its own, which has imported nothing before."""
    command = [
        sys.executable,
        "-m",
        "easycap.cli",
        "train",
        f"init_from={first}",
        "objective=scst",
        "--cfg",
        "job",
    ]
    environment = os.environ | {"PYTHONPATH": str(Path(easycap.__file__).parent.parent)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr


def test_a_recipe_counts_as_asked_for(first: Path) -> None:
    recipe = check(compose(["experiment=easycap/quickstart_cider"])[0])
    config = check(compose([f"init_from={first}", "experiment=easycap/quickstart_cider"])[0])
    assert all(config[group] == recipe[group] for group in ("data", "encoder", "decoder", "optim"))


def test_of_the_other_task_data_and_encoder_are_taken(first: Path) -> None:
    config = check(compose([f"init_from={first}", "task=tags", "tagger=cnn"])[0])
    assert config["encoder"]["image_size"] == 32 and config["data"]["size"] == 32
    assert config["validation"] == check(compose(["task=tags", "tagger=cnn"])[0])["validation"]


def test_what_differs_is_named(first: Path) -> None:
    config = check(
        compose([f"init_from={first}", "objective=scst", "data.train_images=7", "tracking=none"])[0]
    )
    found = differences(initial_run_config(str(first)), config)
    assert "data.train_images=7 (was 24)" in found and "objective=scst (was xe)" in found
    assert not any(line.startswith(("encoder", "decoder", "tracking")) for line in found)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "image_tokens.count=3",
            r"image_tokens\.\w+ is \[2, \d+\] there and is \[3, \d+\] here; use the encoder",
        ),
        ("decoder.num_layers=2", "does not exist there and is .* here; use the encoder"),
        ("vocab=bert", "uses vocab=word: set vocab=word"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_any_work(
    first: Path, override: str, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        try_out(check(compose([*TINY, f"init_from={first}", override])[0]))


def test_a_start_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="init_from=nowhere: nowhere is not a folder"):
        try_out(check(compose([*TINY, "init_from=nowhere"])[0]))


def test_what_a_run_begins_with_is_part_of_what_it_computes(first: Path) -> None:
    plain, started, hours = (
        config_hash(check(compose([*TINY, *extra])[0]))
        for extra in ([], [f"init_from={first}"], ["trainer.max_hours=3", "trainer.checkpoint_every_steps=7"])
    )
    assert plain == hours != started
