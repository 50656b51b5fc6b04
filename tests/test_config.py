"""Configs: every file on disk composes and builds; every kind of mistake ends with one sentence."""

from __future__ import annotations

import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_config import try_out
from helpers.tiny_image_text_models import tiny_model
from helpers.tiny_tokenizers import tiny_bert, tiny_gpt2, tiny_language_model_tokenizer
from omegaconf import OmegaConf

from easycap.config.compose import compose
from easycap.config.options import options
from easycap.config.schema import (
    GROUPS,
    check,
    config_hash,
    fields_of,
    option_from_text,
    to_plain,
)
from easycap.errors import UserError
from easycap.models.build import build_captioner
from easycap.registry import groups, names
from easycap.utils.paths import config_dir

OPTIONS = [
    (path.parent.name, path.stem)
    for group in GROUPS
    for path in sorted((config_dir() / group).glob("*.yaml"))
]
SMOLLM2 = "{model_type: llama, hidden_size: 576, intermediate_size: 1536, num_hidden_layers: 30, "
SMOLLM2 += "num_attention_heads: 9, num_key_value_heads: 3, max_position_embeddings: 8192, tie_word_embeddings: true}"
BELOW_A_ROOT = {name for group, name in OPTIONS if group == "data"} - {"scenes", "folder", "huggingface"}
EXPERIMENTS = sorted(
    str(path.relative_to(config_dir() / "experiment").with_suffix(""))
    for path in (config_dir() / "experiment").rglob("*.yaml")
)


def needed(*overrides: str) -> list[str]:
    """The overrides with what the options they choose need: the user's data, one of timm's models, tokenizer files."""
    extra = []
    text = " ".join(overrides)
    recipes = [o.removeprefix("experiment=") for o in overrides if o.startswith("experiment=")]
    chosen = {word.removeprefix("data=") for word in text.split() if word.startswith("data=")}
    if chosen & BELOW_A_ROOT or any(
        not recipe.startswith(("easycap/quickstart", "easycap/scenes")) for recipe in recipes
    ):
        extra.append("data.root=somewhere")
    if "data=folder" in text:
        extra.append("data.images=somewhere")
    if "data=huggingface" in text:
        extra.append("data.path=somewhere/named")
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
    if "captioner=huggingface" in text or "experiment=huggingface/" in text:
        kind = "smolvlm" if "smolvlm" in text else "git"
        extra.append(f"captioner.model={tiny_model(kind)}")
    if "experiment=huggingface/" in text:
        extra = [word for word in extra if not word.startswith("data.root")] + ["data.images=somewhere"]
    if "encoder=timm" in text:
        extra.append("encoder.model=resnet10t")
    if any(
        ("clipcap/flickr8k" in recipe or "smollm2" in recipe or "prompts" in recipe) for recipe in recipes
    ):
        extra += [f"vocab.path={tiny_language_model_tokenizer()}", f"decoder.architecture={SMOLLM2}"]
    elif "vocab=gpt2" in text or "experiment=clipcap/" in text:
        extra.append(f"vocab.path={tiny_gpt2()}")
    if "vocab=pretrained" in text:
        extra.append(f"vocab.path={tiny_language_model_tokenizer()}")
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
    try_out(settings)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_builds_at_full_size(experiment: str) -> None:
    try_out(checked(f"experiment={experiment}"))


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
        (["optim.lr=nan"], ["optim.lr=nan must be a number, and finite"]),
        (["optim.betas=[0.9,inf]"], ["optim.betas=[0.9, inf]", "finite"]),
        (["trainer.clip_norm=inf"], ["trainer.clip_norm=inf must be a number or null, and finite"]),
        (["seed=100000000000000000000"], ["seed=100000000000000000000 is too large"]),
        (["image_tokens.count=100000000000000000000"], ["image_tokens.count", "too large"]),
        (["decoder.vocab_size=7"], ["decoder.vocab_size"]),
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
        ("optim.betas=[1,2]", "optim.betas=[1.0, 2.0]: both must be at least 0 and below 1"),
        ("optim.betas=[0.9,-0.1]", "optim.betas=[0.9, -0.1]"),
        ("optim.eps=0", "optim.eps=0.0 must be above 0"),
        ("optim.momentum=1", "optim.momentum=1.0 must be at least 0 and below 1"),
        ("optim.encoder_matrix_lr=-1", "optim.encoder_matrix_lr=-1.0 must be 0 or a positive number"),
        ("optim.weight_decay=-1", "optim.weight_decay=-1.0"),
        ("schedule.final_factor=-1", "schedule.final_factor=-1.0 must be 0 or a positive number"),
        ("validation.images=0", "validation.images=0 must be at least 1, or null"),
        ("validation.samples=-1", "validation.samples=-1"),
        ("validation.metric=CIDER", "validation.metric='CIDER' is not measured; did you mean 'CIDEr-D'"),
        ("validation.metric=SPICE", "validation.metric='SPICE' is not measured"),
        ("trainer.accumulate=-1", "trainer.accumulate=-1"),
        ("trainer.clip_norm=0", "trainer.clip_norm"),
        ("image_tokens.count=0", "image_tokens.count=0"),
        ("image_tokens.num_heads=3", "num_heads=3"),
        ("decoder.width=130", "decoder.num_heads=4"),
        ("decoder.max_length=64", "decoder.max_length=64"),
        ("decoder.num_layers=-2", "decoder.num_layers=-2"),
        ("encoder.image_size=60", "encoder.image_size=60"),
        ("encoder.widths=[31,64]", "encoder.widths"),
        ("objective.label_smoothing=1", "label_smoothing"),
        ("optim.lr=-1", "optim.lr=-1"),
        ("schedule.warmup_steps=-1", "schedule.warmup_steps=-1"),
        ("device=toaster", "device='toaster'"),
        ("decoding.min_length=-1", "decoding.min_length"),
    ],
)
def test_impossible_values_end_before_any_work(override: str, word: str) -> None:
    with pytest.raises(ValueError, match=word.replace("[", r"\[").replace("]", r"\]")):
        try_out(checked(override))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "tracking.project=mine",
            "tracking.project does not exist for tracking 'none'; choose tracking=wandb$",
        ),
        ("tags.run=RUN", "tags.run does not exist for tags 'none'; choose tags=mixed or tags=predicted$"),
        ("tracking.projet=mine", "allowed: nothing"),
    ],
)
def test_a_setting_of_another_option_names_that_option(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        checked(override)


def test_the_mode_of_wandb_ends_before_any_work() -> None:
    with pytest.raises(UserError, match="tracking.mode='ofline' does not exist; did you mean 'offline'"):
        try_out(checked("tracking=wandb", "tracking.mode=ofline"))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["task=tag"], "task=tag must be caption or tags"),
        (["task=tags"], "set tagger=cnn or tagger=lstm"),
        (["+tagger.name=cnn"], "tagger.width has no value"),
        (["task=tags", "tagger=cnn", "tagger.gamma_negative=-1"], "tagger.gamma_negative=-1"),
        (["task=tags", "tagger=lstm", "tagger.max_tags=0"], "tagger.max_tags=0"),
        (["task=tags", "tagger=cnn", "tag_vocab.size=0"], "tag_vocab.size=0"),
        (["task=tags", "tagger=cnn", "objective=scst"], "objective=scst is for captioners"),
    ],
)
def test_a_task_has_its_model(overrides: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        try_out(check(compose(overrides)[0]))


def test_a_captioner_trains_no_tagger() -> None:
    with pytest.raises(ValueError, match="tagger=cnn is trained with task=tags"):
        try_out(check(compose(["tagger=cnn"])[0]))


def test_hard_attention_is_rewarded_for_the_datas_words_only() -> None:
    with pytest.raises(ValueError, match="objective=xe or decoder.attention=soft"):
        try_out(checked("decoder=attention_lstm", "decoder.attention=hard", "objective=scheduled_sampling"))


@pytest.mark.parametrize("vocab", ["word", "gpt2", "bert"])
def test_the_full_models_recipe_takes_any_vocabulary(vocab: str) -> None:
    assert checked("experiment=easycap/coco", f"vocab={vocab}", "data.root=.")["vocab"]["name"] == vocab


def test_a_grid_that_cannot_be_lists_what_can() -> None:
    with pytest.raises(ValueError, match="4 x 4 map; possible: 1, 2, 3, 4, 6, 8, 9, 12, 16"):
        try_out(checked("image_tokens=grid", "image_tokens.count=5"))


# ----------------------------------------------------------------------------------------------- schema


def test_types_survive() -> None:
    settings = checked("trainer.precision=bf16", "encoder.widths=[32,64]", "encoder.image_size=64")
    assert settings["encoder"]["widths"] == (32, 64)
    assert settings["trainer"]["precision"].name == "bf16"
    assert check(OmegaConf.create(to_plain(settings))) == settings


def test_the_hash_is_of_what_is_computed() -> None:
    base = config_hash(checked())
    assert config_hash(checked("tracking=none", "trainer.workers=3", "device=cpu")) == base
    assert config_hash(checked("seed=2")) != base
    assert config_hash(checked("trainer.cache_features=false")) == base
    assert config_hash(checked("trainer.cache_features=true")) != base
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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tracking.tags=abc", "tracking.tags=abc must be a list of texts, e.g. [a,b]"),
        ("encoder.widths=7", "encoder.widths=7 must be a list of whole numbers, e.g. [a,b]"),
        ("optim.betas=[0.9]", "must be a list of 2 numbers"),
        ("objective.rewards=CIDEr-D", "must be a mapping from names to numbers, e.g. '{a: 1}'"),
    ],
)
def test_lists_and_mappings_are_described_in_words(override: str, message: str) -> None:
    choices = ["tracking=wandb", "objective=scst", "encoder=small"]
    with pytest.raises(UserError, match=re.escape(message)):
        check(compose([*choices, override])[0])


@pytest.mark.parametrize(
    ("word", "message"),
    [("tracking=[tensorboard,csv]", "tracking.also="), ("decoder=[lstm,updown]", "decoder takes one option")],
)
def test_a_list_of_options_is_refused(word: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        compose([word])
