"""`easycap.train`, `evaluate` and `compare` from Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_config import TINY
from hydra.core.override_parser.overrides_parser import OverridesParser

import easycap
from easycap.api import overrides_of
from easycap.cli import main
from easycap.config.compose import compose
from easycap.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> easycap.Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EASYCAP_CACHE", str(scenes_cache))
        folder = tmp_path_factory.mktemp("a b") / "run"
        return easycap.train([*TINY, "trainer.max_steps=2"], folder=folder)


def test_a_run_is_trained_scored_and_reported(run: easycap.Run) -> None:
    assert (run.folder / "report.html").is_file() and run.result["scores"] == run.scores
    assert {"value", "low", "high", "signature"} <= set(run.scores["test"]["CIDEr-D"])
    image = next((run.folder / "samples" / "images").glob("*.png"))
    assert isinstance(run.load(device="cpu").caption(image), str)


def test_a_completed_run_is_not_trained_again(run: easycap.Run) -> None:
    before = (run.folder / "status.json").read_text()
    again = easycap.train({"resume": str(run.folder)})
    assert again == run and (run.folder / "status.json").read_text() == before


def test_evaluate_returns_what_it_adds_to_the_run(run: easycap.Run) -> None:
    scores = easycap.evaluate(run.folder, split="val", decoding="beam,num_beams=2", device="cpu")
    (label,) = scores
    assert label.startswith("val@beam") and run.scores[label] == scores[label]
    with pytest.raises(UserError, match="samples=1 must be at least 2"):
        easycap.evaluate(run.folder, samples=1)
    with pytest.raises(UserError, match="split 'no' does not exist"):
        easycap.evaluate(run.folder, split="no", device="cpu")


def test_compare_returns_rows(run: easycap.Run) -> None:
    (row,) = easycap.compare(run.folder, metrics=["CIDEr-D"])
    score = run.scores["test"]["CIDEr-D"]
    assert row["run"] == "run" and row["CIDEr-D signature"] == score["signature"]
    assert (row["CIDEr-D"], row["CIDEr-D low"], row["CIDEr-D high"]) == tuple(
        score[key] for key in ("value", "low", "high")
    )
    (row,) = easycap.compare([run.folder], columns=["BLEU-4", "run"])
    assert next(iter(row)) == "BLEU-4" and "CIDEr-D" not in row
    with pytest.raises(UserError, match="no column 'x'"):
        easycap.compare(run.folder, columns=["x"])


def test_the_command_and_python_train_the_same(
    run: easycap.Run, tmp_path: Path, scenes_cache: Path, monkeypatch
) -> None:
    monkeypatch.setenv("EASYCAP_CACHE", str(scenes_cache))
    assert main(["train", *TINY, "trainer.max_steps=2", f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    other = easycap.Run(tmp_path / "run")
    assert other.scores["test"] == run.scores["test"]
    assert (other.folder / "config.yaml").read_text() == (run.folder / "config.yaml").read_text()


def test_wrong_settings_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean"):
        easycap.train({"decoder": "lsmt"}, folder=tmp_path / "run")
    with pytest.raises(UserError, match="must be a list"):
        easycap.train("decoder=lstm")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        0.5,
        1e-7,
        "lstm",
        "3",
        "true",
        "a, b",
        "it's",
        "back\\slash'",
        "größe",
        "",
        [1, "a"],
        {"a": [1.5]},
        [],
    ],
    ids=repr,
)
def test_values_mean_on_a_command_line_what_they_are(value: Any) -> None:
    (word,) = overrides_of({"tracking.tags": value})
    assert OverridesParser.create().parse_override(word).value() == value


def test_mappings_choose_options_and_paths(tmp_path: Path) -> None:
    words = overrides_of(
        {"decoder": "lstm", "data": "coco", "data.root": tmp_path / "a=b, c", "tracking": "none"}
    )
    config = compose(words).config
    assert config.decoder.name == "lstm" and config.data.root == str(tmp_path / "a=b, c")
    with pytest.raises(UserError, match="seed=<object"):
        overrides_of({"seed": object()})


def test_train_is_a_module_and_can_be_called() -> None:
    code = "import easycap, easycap.train; print(callable(easycap.train), easycap.train.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "easycap.train"]
    assert easycap.train.train is not None
