"""Training in stages: a run begins with the best weights and the words of another, and with nothing else of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_resume import Killed, killed, left_behind, run
from tiny import TINY

from easycap.config import check, config_hash
from easycap.launch import compose
from easycap.rehearsal import rehearse
from easycap.training.fit import Fit


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

    def look(self: Fit, batches: list) -> dict[str, float]:
        begun.update({name: tensor.clone() for name, tensor in self.captioner.state_dict().items()})
        begun["words"], begun["moments"] = len(self.vocabulary), self.optimization.has_state
        raise Killed

    monkeypatch.setattr(Fit, "train_step", look)
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
    path = killed(tmp_path / "run", Fit, "train_step", 5, f"init_from={gone}")
    shutil.rmtree(gone)
    assert left_behind(run(path)) == whole


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "image_tokens.count=3",
            r"image_tokens\.\w+ is \[2, \d+\] there and \[3, \d+\] here; take the encoder",
        ),
        ("vocab=bert", "knows the words of vocab=word: set vocab=word"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_any_work(
    first: Path, override: str, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        rehearse(check(compose([*TINY, f"init_from={first}", override])[0]))


def test_a_start_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="init_from=nowhere: nowhere is no folder"):
        rehearse(check(compose([*TINY, "init_from=nowhere"])[0]))


def test_what_a_run_begins_with_is_part_of_what_it_computes() -> None:
    plain, started, hours = (
        config_hash(check(compose([*TINY, *extra])[0]))
        for extra in ([], ["init_from=a"], ["trainer.max_hours=3", "trainer.checkpoint_every_steps=7"])
    )
    assert plain == hours != started
