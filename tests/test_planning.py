"""Planning of sweeps: many runs are composed and checked with little work, and as carefully as one."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.tiny_config import TINY

from easycap.config import compose as composing
from easycap.config.compose import Composer, compose
from easycap.errors import UserError
from easycap.sweeps.plan import make_plan, read_request
from easycap.tasks import dry_run as dry_runs

COMMON = ["experiment=easycap/quickstart", *TINY, "decoding=sample", "objective.label_smoothing=0.2"]
WORDS = [
    [],
    ["seed=4"],
    ["seed=5", "image_tokens=split", "image_tokens.count=5"],
    ["image_tokens=split"],
    ["decoder=transformer", "decoder.width=32", "+trainer.patience=2"],
    ["decoding=beam", "decoding.num_beams=2"],
    ["objective=scst", "objective.rewards={CIDEr-D: 1, truth: 0.5}", "~objective.rewards.CIDEr-D"],
    ["vocab=pretrained", "decoder=causal_lm", "decoder.pretrained=somewhere"],  # one refers to the other
    ["trainer.epochs=${trainer.batch_size}"],
    ["tracking.also=[csv]", "+trainer.patience=null", "objective.nothing.at_all='a b'"],
]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_configs_composed_together_are_those_composed_one_by_one(words: list[str]) -> None:
    together = Composer(COMMON)
    for others in (WORDS[2], words, WORDS[4], words):
        found = together(others)
    assert found == compose([*COMMON, *words]).config


def test_mistakes_are_found_as_in_one_config() -> None:
    together = Composer(["seed=1"])
    for words in (["image_tokens=nonsense"], ["seed=${nothing}"], ["seed=1,2"]):
        together(["trainer.epochs=2"])
        with pytest.raises(UserError) as alone:
            compose(["seed=1", *words])
        with pytest.raises(UserError) as one_of_many:
            together(words)
        assert str(one_of_many.value).split()[0] == str(alone.value).split()[0]


def count_calls(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> list[str]:
    calls, real = [], getattr(module, name)

    def counted(*args: object, **kwargs: object) -> object:
        calls.append(name)
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, counted)
    return calls


def test_yaml_is_read_once_per_choice_and_each_model_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read = count_calls(monkeypatch, composing, "compose_all")
    built = count_calls(monkeypatch, dry_runs, "model_on_meta")
    axes = ["image_tokens=split,resampler", "trainer.epochs=1,2,3", "seed=range(1,6)", "decoding=sample"]
    words = [word for word in TINY if not word.startswith(("trainer.epochs", "image_tokens.num_heads"))]
    plan = make_plan(read_request([*words, *axes]))
    assert len(plan.runs) == 30
    assert (len(read), len(built)) == (2, 2)
    assert sorted({settings["trainer"]["epochs"] for settings in plan.settings}) == [1, 2, 3]


@pytest.mark.parametrize(
    ("axis", "fault"),
    [
        ("decoder.width=16,32,15", "decoder.width=15"),
        ("optim.lr=0.1,0.2,nan", "optim.lr=nan"),
        ("trainer.epochs=1,2,0", "trainer.epochs=0"),
        ("decoding=greedy,sample,nonsense", "decoding=nonsense"),
        ("validation.metric=null,CIDEr-D,nonsense", "validation.metric=nonsense"),
        ("tags.max_length=1,2", "tags.max_length=1"),
    ],
)
def test_one_wrong_run_among_many_is_named(axis: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"run .*{fault}"):
        make_plan(read_request([*TINY, axis, "seed=1,2"]))
    assert not (tmp_path / "outputs").exists()
