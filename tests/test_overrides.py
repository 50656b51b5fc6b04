"""Overrides: paths are text, whatever characters they hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.tiny_config import TINY
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from easycap.cli import main
from easycap.config import replaced_options
from easycap.config.compose import Composer, compose
from easycap.config.options import options
from easycap.config.overrides import PATHS, as_text, parse, quoted
from easycap.config.schema import GROUPS, check_group, fields_of
from easycap.errors import UserError
from easycap.sweeps.space import axes_of
from easycap.utils.paths import expanded

# Characters of file names: anything but "/", NUL, line breaks and lone surrogates.
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=12).filter(
    lambda name: "${" not in name and not (name[0] == name[-1] and name[0] in "'\"" and len(name) > 1)
)
ODD = [
    "a b",
    "a'b",
    "'",
    "a\\'b",
    "a\\",
    "x=y",
    "#1",
    "a&b",
    "Bücher",
    "[1]",
    "{a}",
    "a,b",
    "%s",
    "$x",
    "(1)",
    "a:b",
    "1",
]


@given(NAMES)
@example("a\\'")
@example("\\\\'x\\\\")
def test_quoted_text_is_that_text(name: str) -> None:
    assert parse([f"vocab.anything={quoted(name)}"])[0].value() == name


@settings(max_examples=25, deadline=None)
@given(NAMES.filter(lambda name: name.strip() and name != "null" and not name.startswith("~")))
@example("'")
def test_a_path_reaches_the_config_as_it_was_typed(name: str) -> None:
    config = compose(["data=coco", f"data.root={name}"]).config
    assert config.data.root == name


@pytest.mark.parametrize("name", ODD)
def test_commas_separate_paths_in_a_sweep_only(name: str) -> None:
    (one,) = parse([f"data.root={name}"])
    assert not one.is_sweep_override() and one.value() == name
    axes = axes_of(parse([f"data.root=A,{name}"], sweep=True), lambda group: [])
    words = [f"data.root={value}" for value in axes["data.root"]]
    assert [parse([word])[0].value() for word in words] == ["A", *name.split(",")]


def test_an_existing_path_with_a_comma_is_one_path(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    assert not parse([f"data.root={tmp_path}/a,b"], sweep=True)[0].is_sweep_override()


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert as_text("resume=~/runs/one") == "resume='/home/ann/runs/one'"


def test_the_home_of_nobody_is_a_name_like_any_other() -> None:
    assert as_text("data.root=~nobody-of-this-name/x") == "data.root='~nobody-of-this-name/x'"
    assert expanded("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


def test_null_and_quoted_values_stay() -> None:
    for word in ("resume=null", "data.root='a b'", 'data.root="a b"', "seed=1", "data=coco"):
        assert as_text(word) == word


def test_text_outside_of_hydra_s_grammar_is_text() -> None:
    assert parse(["data.caption_column=Größe (cm)"])[0].value() == "Größe (cm)"


@pytest.mark.parametrize("word", ["seed", "trainer={a", "vocab=[1"])
def test_what_cannot_be_read_is_named(word: str) -> None:
    with pytest.raises(UserError, match="cannot be parsed as GROUP=OPTION"):
        parse([word])


@pytest.mark.parametrize("key", ["resume", "init_from", "data.root"])
def test_an_empty_path_is_refused(key: str) -> None:
    with pytest.raises(UserError, match=f"{key}= is empty"):
        parse([f"{key}="])


def test_references_are_named_where_they_fail() -> None:
    with pytest.raises(UserError, match=r"data.root=\$\{x\}: '\$\{' refers to another setting"):
        compose(["data=coco", "data.root=${x}"])
    with pytest.raises(UserError, match="rename the folder, or link to it"):
        quoted("/data/${x}")


def test_every_setting_of_that_name_is_a_path() -> None:
    """PATHS names fields that exist, and no field with a path's name is left out."""
    fields = {f"{g}.{key}" for g in GROUPS for option in options(g) for key in _fields(g, option)}
    named = {key for key in PATHS if "." in key and not key.startswith("hydra")}
    assert named <= fields
    last = {"root", "path", "run", "weights", "features"}
    assert {key for key in fields if key.rpartition(".")[2] in last} <= named


def _fields(group: str, option: str) -> dict:
    from easycap.config.options import option_values

    return fields_of(group, option_values(group, option)["name"])


def test_a_run_in_an_odd_folder(tmp_path: Path, scenes_cache: Path, monkeypatch, capsys) -> None:
    """Trained, listed, resumed and evaluated where the outputs folder holds every odd character at once."""
    outputs = tmp_path / "it's #1 & [ö] = 100%, {yes}"
    monkeypatch.setenv("EASYCAP_OUTPUTS", str(outputs))
    assert main(["train", *TINY, "trainer.max_steps=1"]) == 0
    (run,) = (outputs / "runs").iterdir()
    assert main(["train", f"resume={run}"]) == 0
    assert main(["evaluate", str(run), "--split", "val"]) == 0


@pytest.mark.parametrize(
    ("override", "instead"),
    [
        ("~data", "write data=OPTION"),
        ("~experiment", "write experiment=OPTION"),
        ("~tags=oracle", "write tags=OPTION, often none"),
        ("~trainer.max_steps", "write trainer.max_steps=VALUE, often null"),
        ("~", "write GROUP=OPTION"),
    ],
)
def test_settings_cannot_be_removed(override: str, instead: str) -> None:
    with pytest.raises(UserError, match=f"'{override}': settings cannot be removed, only set: {instead}"):
        parse([override])


def test_entries_of_a_table_can_be_removed() -> None:
    config = compose(["objective=scst", "~objective.rewards.CIDEr-D"]).config
    assert not config.objective.rewards


# --------------------------------------------------------------------------------- another option than a recipe's


def _replaced(overrides: list[str], caplog: pytest.LogCaptureFixture) -> tuple[DictConfig, list[str]]:
    replaced_options._log_once.cache_clear()
    caplog.clear()
    return compose(["experiment=easycap/flickr8k", *overrides]).config, caplog.messages


def test_a_recipe_s_settings_go_with_the_option_that_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    config, said = _replaced(["decoder=lstm"], caplog)
    assert "width" not in config.decoder and check_group("decoder", config.decoder)
    assert config.decoder.dropout == 0.2  # both have it: the recipe's
    assert said == ["decoder=lstm does not have the recipe's decoder.width, decoder.feed_forward_dim"]

    config, said = _replaced(["decoder=transformer"], caplog)
    assert config.decoder.width == 256 and not said


def test_what_the_command_line_sets_is_never_left_out(caplog: pytest.LogCaptureFixture) -> None:
    config, said = _replaced(["decoder=lstm", "decoder.width=8"], caplog)
    assert config.decoder.width == 8
    assert said == ["decoder=lstm does not have the recipe's decoder.feed_forward_dim"]
    with pytest.raises(UserError, match="decoder.width does not exist for decoder 'lstm'"):
        check_group("decoder", config.decoder)


def test_a_sweep_leaves_out_the_same() -> None:
    words = ["experiment=easycap/flickr8k", "decoder=lstm", "seed=3"]
    assert Composer(words[:1])(words[1:]) == OmegaConf.to_container(compose(words).config)
    assert Composer(words)(["decoder.width=8"])["decoder"]["width"] == 8


@pytest.mark.parametrize("decoder", options("decoder"))
def test_every_decoder_fits_into_the_recipe_of_photographs(decoder: str) -> None:
    check_group("decoder", compose(["experiment=easycap/flickr8k", f"decoder={decoder}"]).config.decoder)
