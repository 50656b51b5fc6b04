"""A text condition of one's own is one class and one YAML: it trains, resumes, is evaluated and captions photos."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny_config import TINY

from easycap import registry
from easycap.cli import main
from easycap.conditioning.conditions import ConditionData, build_conditions
from easycap.config.compose import compose
from easycap.config.schema import check, config_hash
from easycap.errors import UserError
from easycap.models.decoders.segments import SegmentEmbedding
from easycap.registry import register_condition
from easycap.types import ConditionInfo, Example, Stage, TextCondition
from easycap.utils.paths import config_dir

YAML = """
name: brightness
max_length: 2
margin: 0.0 # by how much brighter than the training images a bright image is
"""


class Brightness(TextCondition):
    """Says whether an image is brighter than the training images are on average."""

    def __init__(self, data: ConditionData, *, max_length: int, margin: float) -> None:
        self.data, self.max_length, self.margin = data, max_length, margin
        self.saved: Path | None = None
        self.found: dict[Any, float] = {}

    def validate(self, config: Mapping[str, Any]) -> None:
        if self.margin < 0:
            raise UserError(f"brightness.margin={self.margin} must be at least 0")

    def prepare(self, examples: Sequence[Example], stage: Stage) -> None:
        self.found |= {example.image: _brightness(example) for example in examples}
        assert self.usual > 0

    @cached_property
    def usual(self) -> float:
        if self.saved is not None:
            return json.loads((self.saved / "usual.json").read_text())
        return float(np.mean([_brightness(example) for example in self.data.splits["train"]]))

    def text(self, example: Example, *, epoch: int | None, targets: Sequence[str]) -> str:
        return "white" if self.found[example.image] > self.usual + self.margin else "black"

    def save(self, run: Path) -> None:
        (run / "brightness").mkdir()
        (run / "brightness/usual.json").write_text(json.dumps(self.usual))

    def load(self, run: Path) -> None:
        self.saved = run / "brightness"

    def describe(self) -> ConditionInfo:
        return ConditionInfo("brightness")


def _brightness(example: Example) -> float:
    return float(example.image.array().mean())


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = shutil.copytree(config_dir(), tmp_path / "conf")
    (folder / "brightness").mkdir()
    (folder / "brightness/brightness.yaml").write_text(YAML)
    for module in [module for name, module in sys.modules.items() if name.startswith("easycap.")]:
        if getattr(module, "config_dir", None) is config_dir:
            monkeypatch.setattr(module, "config_dir", lambda: folder)
    register_condition("brightness", "brightness")(Brightness)
    yield
    registry._COMPONENTS.pop("brightness")
    registry._CONDITION_GROUPS.remove("brightness")


@pytest.mark.usefixtures("registered")
def test_it_trains_is_evaluated_resumed_and_captions(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    words = [*TINY, "brightness=brightness", "draft=noise", "trainer.max_steps=2"]
    assert main(["train", *words, f"hydra.run.dir={run}"]) == 0
    rows = json.loads((run / "samples/test.json").read_text())["random"]
    assert {row["conditioning"]["brightness"] for row in rows} == {"white", "black"}
    assert all(row["conditioning"]["draft"] for row in rows)

    # Evaluated by what the run saved, not by the training images.
    scores = json.loads((run / "result.json").read_text())["scores"]["test"]
    assert main(["evaluate", str(run), "--device", "cpu"]) == 0
    assert json.loads((run / "result.json").read_text())["scores"]["test"] == scores
    (run / "brightness/usual.json").write_text("1000")
    assert main(["evaluate", str(run), "--device", "cpu"]) == 0
    rows = json.loads((run / "samples/test.json").read_text())["random"]
    assert {row["conditioning"]["brightness"] for row in rows} == {"black"}

    capsys.readouterr()
    photo = next((run / "samples/images").iterdir())
    assert main(["caption", str(run), str(photo), "--draft", "a dog", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith(f"{photo}: ")
    # A run that starts from this one is conditioned on the same.
    config = check(compose([f"init_from={run}"])[0])
    assert config["brightness"] == {"name": "brightness", "max_length": 2, "margin": 0.0}


@pytest.mark.usefixtures("registered")
def test_its_settings_are_checked_and_without_it_nothing_changes(capsys: pytest.CaptureFixture) -> None:
    plain = check(compose(TINY)[0])
    assert "brightness" not in plain
    config = check(compose([*TINY, "brightness=brightness", "tags=oracle"])[0])
    assert config_hash(config) != config_hash(plain)
    conditions = build_conditions(config, read_splits=dict, run=None, device=None)
    assert list(conditions) == ["tags", "brightness"] and conditions.oracles == ["tags:oracle"]
    assert main(["train", *TINY, "brightness=brightness", "brightness.margin=-1"]) == 1
    assert "brightness.margin=-1.0 must be at least 0" in capsys.readouterr().err
    assert main(["train", *TINY, "brightness=nothing"]) == 1
    assert "brightness=nothing does not exist; allowed: brightness" in capsys.readouterr().err
    with pytest.raises(UserError, match="brightness.margn does not exist"):
        check(compose([*TINY, "brightness=brightness", "brightness.margn=1"])[0])
    SegmentEmbedding(("image", "brightness"), 4)
    with pytest.raises(UserError, match="each of brightness, draft, image, tags at most once"):
        SegmentEmbedding(("image", "brihgtness"), 4)
