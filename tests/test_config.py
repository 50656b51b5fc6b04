"""Configs: every file on disk composes and builds; every kind of mistake ends with one sentence."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from tokenizers_on_disk import tiny_bert, tiny_gpt2

from easycap.build import build_captioner
from easycap.config import (
    GROUPS,
    SUPPLIED,
    check,
    config_hash,
    fields_of,
    option_from_text,
    options,
    to_plain,
)
from easycap.launch import compose
from easycap.paths import config_dir
from easycap.registry import groups, names
from easycap.rehearsal import rehearse

OPTIONS = [
    (path.parent.name, path.stem)
    for group in GROUPS
    for path in sorted((config_dir() / group).glob("*.yaml"))
]
EXPERIMENTS = sorted(
    str(path.relative_to(config_dir() / "experiment").with_suffix(""))
    for path in (config_dir() / "experiment").rglob("*.yaml")
)


def needed(*overrides: str) -> list[str]:
    """The overrides with what the options they choose need: the user's data, one of timm's models, tokenizer files."""
    extra = []
    text = " ".join(overrides)
    recipes = [o.removeprefix("experiment=") for o in overrides if o.startswith("experiment=")]
    if any(f"data={name}" in text for name in ("coco", "flickr")) or any(
        not recipe.startswith("easycap/quickstart") for recipe in recipes
    ):
        extra.append("data.root=somewhere")
    if "data=folder" in text:
        extra.append("data.images=somewhere")
    if "tagger=cnn" in text or "tagger=lstm" in text:
        extra.append("task=tags")
    if "objective=xe_then_scst" in text:
        extra.append("trainer.patience=3")
    if "encoder=precomputed" in text or any("bottom_up" in recipe for recipe in recipes):
        extra.append("encoder.features=somewhere")
    if "tags=predicted" in text or "tags=mixed" in text:
        extra.append(f"tags.run={tag_model()}")
    if "draft=captions" in text:
        extra.append(f"draft.run={said_of_nothing()}")
    if "encoder=timm" in text:
        extra.append("encoder.model=resnet10t")
    if "vocab=gpt2" in text or "experiment=clipcap/" in text:
        extra.append(f"vocab.path={tiny_gpt2()}")
    if "vocab=bert" in text:
        extra.append(f"vocab.path={tiny_bert()}")
    return [*overrides, *extra]


@cache
def tag_model() -> Path:
    """As much of a tag model's run as is looked at before any work."""
    folder = Path(tempfile.mkdtemp())
    (folder / "model.safetensors").touch()
    (folder / "config.json").write_text('{"task": "tags"}')
    return folder


@cache
def said_of_nothing() -> Path:
    """A run's folder with captions of no image."""
    folder = Path(tempfile.mkdtemp())
    (folder / "captions.val.json").write_text("[]")
    (folder / "result.json").write_text("{}")
    return folder


def checked(*overrides: str) -> dict[str, Any]:
    return check(compose(needed(*overrides))[0])


class Words:
    pad_id, bos_id, eos_id, unk_id = range(4)

    def __len__(self) -> int:
        return 15_000


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_checks_and_builds(group: str, option: str) -> None:
    settings = checked(f"{group}={option}")
    stated = {
        k for k in OmegaConf.load(config_dir() / group / f"{option}.yaml") if k not in ("name", "defaults")
    }
    assert stated <= set(fields_of(group, settings[group]["name"]))
    rehearse(settings)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_builds_at_full_size(experiment: str) -> None:
    rehearse(checked(f"experiment={experiment}"))


def test_every_registered_component_has_an_option() -> None:
    reached = {
        (group, OmegaConf.load(config_dir() / group / f"{option}.yaml").get("name"))
        for group, option in OPTIONS
    }
    for group in groups():
        if group in GROUPS:
            missing = {name for name in names(group) if (group, name) not in reached}
            assert not missing, f"{group}: no YAML chooses {missing}"


def test_experiments_are_recipes_not_copies() -> None:
    for path in (config_dir() / "experiment").rglob("*.yaml"):
        lines = [li for li in path.read_text().splitlines() if li.strip() and not li.strip().startswith("#")]
        assert len(lines) <= 18, path


def test_the_full_model_has_the_size_of_its_parts() -> None:
    """ResNet-101 without head, Linear(2048, 10 x 768), GPT-2 small with a table of 15,000 words (tied)."""
    settings = checked("experiment=easycap/coco", "encoder.pretrained=false")
    with torch.device("meta"):
        captioner = build_captioner(settings, Words())
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in captioner.named_children()}
    gpt2_small = 124_439_808 - (50_257 - 15_000) * 768
    assert sizes == {
        "encoder": 42_500_160,
        "image_tokens": 2048 * 7680 + 7680,
        "decoder": gpt2_small,
        "context": 0,
    }


# ---------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["trainer.epoch=3"], ["trainer.epoch", "'epochs'", "batch_size"]),
        (["+trainer.epoch=3"], ["trainer.epoch", "'epochs'"]),
        (["++trainer.epoch=3"], ["trainer.epoch", "'epochs'"]),
        (["trainer.epochs=many"], ["trainer.epochs=many", "a whole number"]),
        (["trainer.precision=fp17"], ["trainer.precision=fp17", "bf16"]),
        (["trainer.clip_norm=big"], ["trainer.clip_norm=big", "a number or null"]),
        (["decodr=gpt2_tiny"], ["'decodr'", "'decoder'"]),
        (["decoder=gpt2_tinny"], ["decoder=gpt2_tinny", "'gpt2_tiny'", "causal_lm"]),
        (["experiment=easycap/quickstar"], ["easycap/quickstart"]),
        (["data.name=scenery"], ["data", "scenery", "scenes"]),
        (["data=coco"], ["data.root", "data.root=..."]),
        (["seed=one"], ["seed=one", "a whole number"]),
        (["decoder.vocab_size=7"], ["decoder.vocab_size"]),
        (["data.cache=my data (1)"], ["quotes"]),
        (["trainer=null"], ["trainer"]),
        (["tagger=cn"], ["tagger=cn", "'cnn'", "lstm"]),
        (["encoder.widths=32"], ["encoder.widths"]),
    ],
)
def test_mistakes_are_named_with_what_is_allowed(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        check(compose(overrides)[0])
    sentence = str(error.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence and len(sentence) < 1000


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("trainer.epochs=0", "trainer.epochs=0"),
        ("trainer.batch_size=0", "trainer.batch_size=0"),
        ("trainer.captions_per_image=0", "trainer.captions_per_image=0"),
        ("trainer.workers=-1", "trainer.workers=-1"),
        ("trainer.unfreeze_encoder_at_epoch=-1", "unfreeze_encoder_at_epoch=-1"),
        ("vocab.size=0", "vocab.size=0"),
        ("optim.betas=[2,3]", "optim: "),
        ("trainer.accumulate=-1", "trainer.accumulate=-1"),
        ("trainer.clip_norm=0", "trainer.clip_norm"),
        ("image_tokens.count=0", "image_tokens.count=0"),
        ("image_tokens.num_heads=3", "num_heads=3"),
        ("decoder.width=130", "decoder.num_heads=4"),
        ("decoder.max_words=64", "decoder.max_words=64"),
        ("decoder.num_layers=-2", "decoder.num_layers=-2"),
        ("encoder.image_size=60", "encoder.image_size=60"),
        ("encoder.widths=[31,64]", "encoder.widths"),
        ("objective.label_smoothing=1", "label_smoothing"),
        ("optim.lr=-1", "optim.lr=-1"),
        ("schedule.warmup_steps=-1", "schedule.warmup_steps=-1"),
        ("device=toaster", "device=toaster"),
        ("decoding.min_words=-1", "decoding.min_words"),
    ],
)
def test_impossible_values_end_before_any_work(override: str, word: str) -> None:
    with pytest.raises(ValueError, match=word.replace("[", r"\[").replace("]", r"\]")):
        rehearse(checked(override))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["task=tag"], "task=tag must be caption or tags"),
        (["task=tags"], "set tagger=cnn or tagger=lstm"),
        (["+tagger.name=cnn"], "tagger.width has no value"),
        (["task=tags", "tagger=cnn", "tagger.gamma_negative=-1"], "tagger.gamma_negative=-1"),
        (["task=tags", "tagger=lstm", "tagger.max_tags=0"], "tagger.max_tags=0"),
        (["task=tags", "tagger=cnn", "tag_vocab.size=0"], "tag_vocab.size=0"),
    ],
)
def test_a_task_has_its_model(overrides: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rehearse(check(compose(overrides)[0]))


def test_a_captioner_trains_no_tagger() -> None:
    with pytest.raises(ValueError, match="tagger=cnn is trained by task=tags"):
        rehearse(check(compose(["tagger=cnn"])[0]))


def test_hard_attention_is_rewarded_for_the_datas_words_only() -> None:
    with pytest.raises(ValueError, match="objective=xe or decoder.attention=soft"):
        rehearse(checked("decoder=attention_lstm", "decoder.attention=hard", "objective=scheduled_sampling"))


@pytest.mark.parametrize("vocab", ["word", "gpt2", "bert"])
def test_the_full_models_recipe_takes_any_vocabulary(vocab: str) -> None:
    assert checked("experiment=easycap/coco", f"vocab={vocab}", "data.root=.")["vocab"]["name"] == vocab


def test_a_grid_that_cannot_be_lists_what_can() -> None:
    with pytest.raises(ValueError, match="4 x 4 map; possible: 1, 2, 3, 4, 6, 8, 9, 12, 16"):
        rehearse(checked("image_tokens=grid", "image_tokens.count=5"))


# ----------------------------------------------------------------------------------------------- schema


def test_no_yaml_sets_what_build_supplies() -> None:
    for group, option in OPTIONS:
        if group == "data":  # nothing is supplied to it
            continue
        assert not SUPPLIED & set(OmegaConf.load(config_dir() / group / f"{option}.yaml")), (group, option)


def test_types_survive() -> None:
    settings = checked("trainer.precision=bf16", "encoder.widths=[32,64]", "encoder.image_size=64")
    assert settings["encoder"]["widths"] == (32, 64)
    assert settings["trainer"]["precision"].name == "bf16"
    assert check(OmegaConf.create(to_plain(settings))) == settings


def test_the_hash_is_of_what_is_computed() -> None:
    base = config_hash(checked())
    assert config_hash(checked("tracking=none", "trainer.workers=3", "device=cpu")) == base
    assert config_hash(checked("seed=2")) != base
    assert config_hash(checked("decoder.dropout=0.1")) != base


def test_a_way_of_decoding_as_text() -> None:
    assert option_from_text("decoding", "beam,num_beams=3")["num_beams"] == 3
    assert option_from_text("decoding", "sample", seed=7)["seed"] == 7
    for text, word in (("beem", "beam"), ("beam,num_beam=3", "num_beams"), ("beam,3", "key=value")):
        with pytest.raises(ValueError, match=word):
            option_from_text("decoding", text)


def test_an_option_as_text_has_what_it_changes_another_by() -> None:
    found = option_from_text("encoder", "resnet18,pretrained=false")
    assert found == checked("encoder=resnet18", "encoder.pretrained=false")["encoder"]
    assert found["model"] != checked("encoder=resnet101")["encoder"]["model"]


def test_options_are_read_from_disk() -> None:
    assert options("decoder") == sorted(p.stem for p in Path(config_dir(), "decoder").glob("*.yaml"))
