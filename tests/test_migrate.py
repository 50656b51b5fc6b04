"""Configs of earlier versions: each still checks, and each setting added since has the value that does the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from easycap.config.compose import compose
from easycap.config.options import options
from easycap.config.schema import (
    GROUPS,
    check,
    check_stored,
    check_stored_group,
    config_hash,
    fields_of,
    option_from_text,
    to_plain,
)
from easycap.errors import UserError
from easycap.report.published.splits import decoding_of
from easycap.runs import migrate
from easycap.runs.reading import read_config, read_result
from easycap.runs.run_folder import RunFolder

# What version 0.1 stored of every option, group=option -> the checked group as plain data. A file of the past: new
# settings are not added to it but named in easycap/runs/migrate.py.
STORED = json.loads((Path(__file__).parent / "stored" / "options.json").read_text())
ROOT = {"task": "caption", "seed": 1, "device": "auto", "imports": [], "resume": None, "init_from": None}


def stored_config(**choices: str) -> dict[str, Any]:
    """A config as version 0.1 stored it, the default one but for `choices`."""
    chosen = dict.fromkeys(("trainer", "validation", "refine"), "default")
    chosen |= dict.fromkeys(("tags", "draft", "tagger", "tracking"), "none")
    chosen |= dict(
        data="scenes", vocab="word", encoder="small", image_tokens="resampler", decoder="gpt2_tiny"
    )
    chosen |= dict(tag_vocab="captions", objective="xe", optim="muon", schedule="cosine", decoding="greedy")
    return ROOT | {group: STORED[f"{group}={option}"] for group, option in (chosen | choices).items()}


@pytest.mark.parametrize("option", STORED)
def test_every_option_of_an_earlier_version_still_checks(option: str) -> None:
    group = option.partition("=")[0]
    checked = check_stored_group(group, OmegaConf.create(STORED[option]))
    assert set(fields_of(group, checked["name"])) == set(checked) - {"name"}


def test_former_values_name_settings_that_exist() -> None:
    for group, components in migrate.FORMER_VALUES.items():
        for name, values in components.items():
            assert set(values) <= set(fields_of(group, name)), (group, name)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if xe's label smoothing had come with this version."""
    values = {name: dict(of) for name, of in migrate.FORMER_VALUES.get("objective", {}).items()}
    values.setdefault("xe", {})["label_smoothing"] = 0.3
    monkeypatch.setitem(migrate.FORMER_VALUES, "objective", values)


def test_what_a_stored_config_lacks_is_filled(added: None) -> None:
    group = OmegaConf.create({"name": "xe"})
    assert check_stored_group("objective", group)["label_smoothing"] == 0.3
    group.label_smoothing = 0.0
    assert check_stored_group("objective", group)["label_smoothing"] == 0.0


def test_whole_groups_and_other_components_are_left_alone(added: None) -> None:
    filled = migrate.fill_former_values({"seed": 3, "schedule": {"name": "constant", "warmup_steps": 0}})
    assert filled == migrate.FORMER_GROUPS | {"seed": 3, "schedule": {"name": "constant", "warmup_steps": 0}}


def test_configs_of_before_a_whole_group_check() -> None:
    config = stored_config()
    for key in migrate.FORMER_GROUPS:
        config.pop(key, None)  # groups of later versions are not in it
    checked = check_stored(OmegaConf.create(config))
    assert list(checked) == [*ROOT, *GROUPS]
    assert checked["task"] == "caption" and checked["refine"]["rounds"] == 0


def test_a_setting_added_at_its_former_value_makes_no_other_run(added: None) -> None:
    """Runs of a sweep are found by their hash: those of an earlier version are found again."""
    without = stored_config()
    former = without | {"objective": {"name": "xe", "label_smoothing": 0.3}}
    without["objective"] = {"name": "xe"}
    assert config_hash(former) == config_hash(without)
    assert config_hash(former) != config_hash(former | {"objective": {"name": "xe", "label_smoothing": 0.0}})


def test_runs_of_two_versions_that_did_the_same_read_the_same(tmp_path: Path, added: None) -> None:
    (tmp_path / "status.json").write_text("{}")
    (tmp_path / "config.yaml").write_text("seed: 1\nobjective: {name: xe}\n")
    config = read_config(tmp_path)
    assert config["seed"] == 1 and config["objective"]["label_smoothing"] == 0.3


def test_renamed_keys_name_settings_that_exist() -> None:
    for group, names in migrate.RENAMED_KEYS.items():
        fields = {key for option in options(group) for key in fields_of(group, name_of(group, option))}
        assert set(names.values()) <= fields and not set(names) & fields, group


def name_of(group: str, option: str) -> str:
    return str(compose([f"{group}={option}"]).config[group].name)


def test_a_run_with_max_words_reads_as_one_with_max_length_and_hashes_as_before() -> None:
    config = stored_config(decoder="lstm", decoding="greedy", tags="oracle", draft="oracle", objective="scst")
    assert config["decoder"]["max_words"] == 20 and config["objective"]["max_words"] is None
    config["decoding"] = config["decoding"] | {"min_words": 3}
    today = check_stored(OmegaConf.create(config))
    assert (today["decoder"]["max_length"], today["decoding"]["min_length"]) == (20, 3)
    assert (today["tags"]["max_length"], today["draft"]["max_length"]) == (16, 20)
    assert config_hash(today) == config_hash(config)
    today["decoder"]["max_length"] = 21
    assert config_hash(today) != config_hash(config)


def test_a_run_with_a_renamed_value_reads_as_today_and_hashes_as_before() -> None:
    config = stored_config(decoder="attention_lstm")
    config["decoder"] = config["decoder"] | {"alpha_reduction": "cells"}
    today = check_stored(OmegaConf.create(config))
    assert today["decoder"]["alpha_reduction"].name == "patches"
    assert config_hash(today) == config_hash(config)


def test_a_captioner_of_transformers_of_before_tiles_were_a_setting_has_them_and_hashes_as_before() -> None:
    today = check(compose(["captioner=huggingface", "captioner.model=somebody/model"]).config)
    stored = today | {
        "captioner": {key: value for key, value in today["captioner"].items() if key != "tiles"}
    }
    assert check_stored(OmegaConf.create(to_plain(stored)))["captioner"]["tiles"] is True
    assert config_hash(stored) == config_hash(today)
    today["captioner"]["tiles"] = False
    assert config_hash(stored) != config_hash(today)


@pytest.mark.parametrize("data", ["coco", "coco_karpathy", "flickr8k", "flickr30k"])
def test_a_run_of_a_reader_of_its_own_reads_as_tables_today_and_hashes_as_before(data: str) -> None:
    config = stored_config(data=data)
    today = check_stored(OmegaConf.create(config))
    assert today["data"] == option_from_text("data", f"{data},root={Path('somewhere').absolute()}")
    assert config_hash(today) == config_hash(config)
    other = {"coco": "val", "coco_karpathy": "restval"}.get(data, "captions")
    today["data"][other] = "x"
    assert config_hash(today) != config_hash(config)


def test_coco_of_2014_reads_as_that() -> None:
    config = stored_config(data="coco")
    config["data"] = config["data"] | {"train": "train2014", "val": "val2014"}
    today = check_stored(OmegaConf.create(config))
    assert today["data"] == option_from_text("data", f"coco2014,root={Path('somewhere').absolute()}")
    assert config_hash(today) == config_hash(config)


@pytest.mark.parametrize("key", ["decoder.max_words", "decoding.max_words", "decoding.min_words"])
def test_a_former_name_on_the_command_line_is_refused_with_the_name_of_today(key: str) -> None:
    with pytest.raises(UserError, match=f"{key} was renamed to {key.replace('words', 'length')}"):
        check(compose([f"{key}=7"]).config)


def test_a_former_value_on_the_command_line_is_refused_with_the_name_of_today() -> None:
    words = ["decoder=attention_lstm", "decoder.alpha_reduction=cells"]
    with pytest.raises(UserError, match=r"=cells was renamed to decoder\.alpha_reduction=patches"):
        check(compose(words).config)


def test_results_of_before_are_read_and_continued_under_the_names_of_today(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"reference_points": {"test": 1}, "baselines": {"val": 2}}')
    result = read_result(tmp_path)
    assert result == {"baselines": {"test": 1, "val": 2}}
    RunFolder(tmp_path, command="").update_result({"baselines": {"val": 3}})
    assert json.loads((tmp_path / "result.json").read_text()) == {"baselines": {"test": 1, "val": 3}}


def test_renamed_values_are_of_settings_that_exist() -> None:
    for group, settings in migrate.RENAMED_VALUES.items():
        fields = {key for option in options(group) for key in fields_of(group, name_of(group, option))}
        assert settings.keys() <= fields


def test_scores_of_a_split_decoded_with_a_former_name_are_read() -> None:
    decoding = decoding_of("test@beam,max_words=9")
    assert decoding is not None and decoding["max_length"] == 9 and "max_words" not in decoding


@pytest.mark.parametrize(("captions_per_image", "captions"), [(2, 32), (None, 80)])
def test_a_run_with_the_penalty_of_the_release_is_that_of_patches_times_its_captions(
    captions_per_image: int | None, captions: int
) -> None:
    config = stored_config(decoder="attention_lstm")
    config["decoder"] = config["decoder"] | {"alpha_reduction": "release", "alpha_weight": 0.5}
    config["trainer"] = config["trainer"] | {"batch_size": 16, "captions_per_image": captions_per_image}
    decoder = check_stored(OmegaConf.create(config))["decoder"]
    assert (decoder["alpha_reduction"].name, decoder["alpha_weight"]) == ("patches", 0.5 * captions)


@pytest.mark.parametrize(("feature_dim", "raw_features"), [(None, False), (2048, True)])
def test_a_run_with_a_feature_dim_reads_raw_features(feature_dim: int | None, raw_features: bool) -> None:
    config = stored_config(decoder="m2")
    config["decoder"] = config["decoder"] | {"feature_dim": feature_dim}
    del config["decoder"]["raw_features"]
    decoder = check_stored(OmegaConf.create(config))["decoder"]
    assert decoder["raw_features"] is raw_features and "feature_dim" not in decoder


def test_reports_read_renamed_settings_too(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{}")
    (tmp_path / "config.yaml").write_text(
        "decoder: {name: attention_lstm, alpha_reduction: release, alpha_weight: 1.0}\n"
        "trainer: {name: default, batch_size: 64, captions_per_image: 1}\n"
    )
    decoder = read_config(tmp_path)["decoder"]
    assert (decoder["alpha_reduction"], decoder["alpha_weight"]) == ("patches", 64.0)
