"""Whole trainings of captioners of transformers: killed and resumed, averaged, swept, on two ranks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.interrupted_runs import Killed, left_behind
from helpers.rank_processes import together
from helpers.tiny_config import TINY
from helpers.tiny_image_text_models import tiny_model
from helpers.whole_runs import read
from omegaconf import OmegaConf

from easycap.cli import main
from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.models.huggingface.image_text_model import CACHING, ImageTextModel
from easycap.models.stored_weights import read_weights
from easycap.train import join_training, train
from easycap.training.checkpoint_files import read_progress
from easycap.training.trainer import Trainer
from easycap.utils.processed_images import FEATURES

OF_PARTS = ("encoder.", "image_tokens.", "decoder.")


def words_of(kind: str, *more: str) -> list[str]:
    """The settings of two epochs of three steps of two batches of a tiny model."""
    return [
        *(word for word in TINY if not word.startswith(OF_PARTS)),
        *("captioner=huggingface", f"captioner.model={tiny_model(kind)}", "captioner.max_length=8"),
        *("optim=adamw", "optim.lr=0.01", "trainer.epochs=2", "trainer.accumulate=2"),
        *("trainer.checkpoint_every_steps=2", "trainer.captions_per_image=1", "trainer.workers=0"),
        *("data.val_images=4", "data.test_images=4", *more),
    ]


def run(folder: Path, kind: str, *more: str) -> Path:
    """A run in a new folder; where one is already, it is resumed with its own config."""
    if (folder / "config.yaml").exists():
        stored = OmegaConf.load(folder / "config.yaml")
        config = check(OmegaConf.merge(stored, OmegaConf.from_dotlist([f"resume={folder}"])))
    else:
        config = check(compose(words_of(kind, *more)).config)
    train(config, folder, command="")
    return folder


def killed_at(step: int, folder: Path, kind: str, *more: str) -> None:
    original = Trainer.train_step

    def dying(self: Trainer, batches: list) -> dict[str, float]:
        if self.state.step == step:
            raise Killed
        return original(self, batches)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "train_step", dying)
        run(folder, kind, *more)


CASES = {  # features of the first are cached
    "lora": ("git", "captioner.tune=lora", "trainer.unfreeze_encoder_at_epoch=null"),
    "all, tower released": (
        "vision-encoder-decoder",
        "captioner.tune=all",
        "trainer.unfreeze_encoder_at_epoch=1",
    ),
}


each = pytest.mark.parametrize("name", CASES)


@each
def test_a_kill_leaves_no_trace(tmp_path: Path, name: str) -> None:
    kind, *more = CASES[name]
    whole = left_behind(run(tmp_path / "whole", kind, *more))
    assert len({line["val/loss"] for line in whole["metrics"] if "val/loss" in line}) == 2
    killed_at(4, tmp_path / "run", kind, *more)
    assert read(tmp_path / "run", "status.json")["status"] != "completed"
    assert left_behind(run(tmp_path / "run", kind)) == whole


def test_the_best_weights_are_averages(tmp_path: Path) -> None:
    after: list[dict[str, torch.Tensor]] = []
    original = Trainer.train_step

    def noted(self: Trainer, batches: list) -> dict[str, float]:
        found = original(self, batches)
        trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        after.append({name: p.detach().clone() for name, p in trained.items()})
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", noted)
        folder = run(tmp_path / "run", "git", "captioner.tune=lora", "trainer.ema=0.5")
    best = read_progress(folder / "checkpoints" / "best")["step"]
    average = after[0]
    for step, weights in enumerate(after[:best]):
        decay = min(0.5, (1 + step) / (10 + step))
        average = {name: decay * average[name] + (1 - decay) * w for name, w in weights.items()}
    kept = read_weights(folder / "checkpoints" / "best")
    assert any("lora_B" in name for name in average) and best > 1
    for name, expected in average.items():
        torch.testing.assert_close(kept[name], expected, msg=name)
    assert any(not torch.equal(kept[name], after[best - 1][name]) for name in average)


def without_dropout(kind: str, folder: Path) -> str:
    """A tiny model in a folder of its own, whose ranks draw nothing at random."""
    shutil.copytree(tiny_model(kind), folder)
    text = (folder / "config.json").read_text(encoding="utf-8")
    names = r"(\w*dropout\w*|\w+_pdrop)"
    (folder / "config.json").write_text(re.sub(rf'"{names}": 0\.\d+', r'"\1": 0.0', text), encoding="utf-8")
    return f"captioner.model={folder}"


@pytest.mark.slow
@each
def test_two_ranks_give_the_losses_of_one(tmp_path: Path, name: str) -> None:
    kind, *more = CASES[name]
    more.append(without_dropout(kind, tmp_path / "model"))
    assert together(lambda: run(tmp_path / "two", kind, *more), join_training) == [0, 0]
    one, two = left_behind(run(tmp_path / "one", kind, *more)), left_behind(tmp_path / "two")
    assert read(tmp_path / "two", "result.json")["environment"]["ranks"] == 2
    for ours, theirs in zip(two["metrics"], one["metrics"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4)
    assert two["captions"] == one["captions"]


@pytest.mark.slow
def test_runs_of_a_sweep_share_the_frozen_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EASYCAP_OUTPUTS", str(tmp_path))
    words = words_of("git", "captioner.lora_rank=1,2", "trainer.max_steps=2", "sweep.name=ranks")
    assert main(["train", "-m", *words]) == 0
    runs = sorted(path.parent for path in (tmp_path / "sweeps" / "ranks").glob("*/result.json"))
    trained = [read(one, "result.json")["cost"]["trainable_parameters"] for one in runs]
    assert trained[1] == 2 * trained[0] > 0
    files = [next((one / "checkpoints" / "best").glob("frozen-*.safetensors")) for one in runs]
    assert files[0].samefile(files[1])
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "sweeps" / "ranks")]) == 0
    assert "lora_rank" in capsys.readouterr().out  # wrapped where the terminal is narrow


class TowerCalls:
    """Counts the images that a vision tower sees in this process."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.images, original = 0, ImageTextModel.features_of

        def counted(model: ImageTextModel, inputs: Any) -> Any:
            self.images += len(inputs.images) * (FEATURES not in inputs.images.rows[0])
            return original(model, inputs)

        patch.setattr(ImageTextModel, "features_of", counted)


@pytest.mark.parametrize("kind", CACHING)
def test_cached_features_give_the_losses_of_images(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are cached in half precision, losses are equal to its rounding."""
    monkeypatch.setenv("EASYCAP_CACHE", str(tmp_path / "cache"))
    more = ["captioner.tune=all", "trainer.unfreeze_encoder_at_epoch=2", "data.test_images=1"]
    more.append(without_dropout(kind, tmp_path / "model"))
    found, seen = {}, {}
    for caching in ("auto", "false"):
        with pytest.MonkeyPatch.context() as patch:
            calls = TowerCalls(patch)
            folder = run(
                tmp_path / caching, kind, *more, "trainer.epochs=3", f"trainer.cache_features={caching}"
            )
        seen[caching] = calls.images
        assert read(folder, "result.json")["features_cached"] == (caching == "auto")
        found[caching] = left_behind(folder)["metrics"]
    assert seen["false"] > seen["auto"]
    for name, tolerance in {"train/loss": 2e-5, "val/loss": 2e-5, "train/grad_norm": 2e-3}.items():
        ours, theirs = ([line[name] for line in found[how] if name in line] for how in ("auto", "false"))
        assert len(ours) >= 3 and ours == pytest.approx(theirs, rel=tolerance), name
