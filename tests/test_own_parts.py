"""Components of users' own: of installed packages, and of modules that a config names."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest
from helpers.own_packages import PART, searched, write_package
from omegaconf import OmegaConf

import easycap
from easycap.cli import main
from easycap.config.compose import compose
from easycap.config.init_from import with_defaults_of
from easycap.config.instantiate import condition_names
from easycap.config.options import option_values, options, values_of_signature
from easycap.config.overrides import parse
from easycap.config.schema import check, config_hash, to_plain
from easycap.errors import UserError
from easycap.registry import SharedSettings, lookup, register

CONDITION = """
import easycap
from easycap.types import TextCondition


@easycap.register_condition("weather", "sunny")
class Sunny(TextCondition):
    def __init__(self, *, max_length: int = 3) -> None:
        self.max_length = max_length
"""
METRIC = """
import easycap
from easycap.metrics.signature import signature
from easycap.types import Score


@easycap.register("scorer", "half")
class Half:
    names = ("half",)

    def score_corpus(self, corpus):
        return {"half": Score(0.5, dict.fromkeys(corpus.ids, 0.5), signature("half", corpus))}
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that Python searches, and the current one."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("EASYCAP_CONFIG_DIR", raising=False)
    with pytest.MonkeyPatch.context() as patch, searched(folder, patch):
        yield folder


def checked(*overrides: str) -> dict:
    return check(compose(overrides).config)


# --------------------------------------------------------------------------------------- installed packages


def test_an_installed_package_is_found_when_it_is_needed(site: Path) -> None:
    write_package(site, "my_package", PART.format(name="mine"))
    assert checked()["imports"] == []
    assert "my_package" not in sys.modules, "only what needs it imports it"
    config = checked("decoder=mine", "decoder.width=32")
    assert config["decoder"] == {"name": "mine", "width": 32, "max_length": 20}
    assert lookup("decoder", "mine").__module__ == "my_package"
    assert "mine" in options("decoder") and options("decoder") == sorted(options("decoder"))


def test_the_run_names_the_package_that_it_needs(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_package(site, "my_package", PART.format(name="mine"))
    write_package(site, "another", METRIC)
    config = checked("decoder=mine", "decoder.width=32")
    assert config["imports"] == ["my_package"]
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(site)])
    monkeypatch.chdir(site.parent)
    with pytest.MonkeyPatch.context() as patch, searched(site.parent, patch):  # as if it were not installed
        del sys.modules["my_package"]
        with pytest.raises(UserError, match="imports: no module my_package in installed packages"):
            check(OmegaConf.create(to_plain(config)))


def test_the_yaml_of_a_package_counts_before_its_signature(site: Path) -> None:
    write_package(
        site, "my_package", PART.format(name="mine"), decoder__mine="name: mine\nwidth: 7\nmax_length: 9\n"
    )
    assert checked("decoder=mine")["decoder"] == {"name": "mine", "width": 7, "max_length": 9}


def test_a_recipe_may_choose_what_has_no_yaml(site: Path) -> None:
    recipe = "# @package _global_\ndefaults: [{override /decoder: mine}]\ndecoder: {width: 5}\n"
    write_package(site, "my_package", PART.format(name="mine"), experiment__own=recipe)
    assert checked("experiment=own")["decoder"]["width"] == 5


def test_a_broken_package_is_told_of_where_it_is_missing_and_else_in_nobodys_way(site: Path) -> None:
    write_package(site, "my_package", "1 / 0\n")
    write_package(site, "good", PART.format(name="mine"))
    assert checked("decoder=lstm")["decoder"]["name"] == "lstm"
    told = r"package my-package could not be loaded \(my_package: ZeroDivisionError: division by zero\)"
    with pytest.raises(UserError, match=f"decoder=thine does not exist; did you mean 'mine'.*; {told}$"):
        compose(["decoder=thine"])
    with pytest.raises(UserError, match=told):
        lookup("decoder", "thine")
    assert checked("decoder=mine", "decoder.width=1")["decoder"]["name"] == "mine"


def test_a_package_cannot_take_a_name_of_ours(site: Path) -> None:
    write_package(site, "my_package", PART.format(name="lstm"))
    with pytest.raises(
        UserError, match=r"lstm is registered twice, by easycap\..* and my_package.Part: choose"
    ):
        checked("decoder=lstmm")
    assert lookup("decoder", "lstm").__module__.startswith("easycap.")


def test_a_text_condition_of_a_package_is_a_group(site: Path) -> None:
    write_package(site, "my_package", CONDITION)
    config = checked("weather=sunny")
    assert config["weather"] == {"name": "sunny", "max_length": 3}
    assert condition_names(config) == ["weather"]
    with pytest.raises(UserError, match="weather=rainy does not exist; allowed: sunny"):
        compose(["weather=rainy"])


def test_a_metric_of_a_package_is_a_metric_of_score(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_package(site, "my_package", METRIC)
    Path("c.json").write_text(json.dumps({"1": "a dog"}))
    Path("r.json").write_text(json.dumps({"1": ["a dog"]}))
    assert main(["score", "c.json", "r.json", "--metrics", "half"]) == 0
    assert "half" in (shown := capsys.readouterr().out) and "50.0" in shown
    assert easycap.score({"1": "a dog"}, {"1": ["a dog"]}, scorers=["half"])["half"].value == 0.5
    assert main(["score", "c.json", "r.json", "--metrics", "halve"]) == 1
    assert "no metric 'halve'; did you mean 'half'?" in capsys.readouterr().err


# ---------------------------------------------------------------------------------- modules in the config


def test_modules_of_the_config_are_imported_and_recorded(site: Path) -> None:
    (site / "parts.py").write_text(PART.format(name="mine"))
    config = checked("imports=[parts]", "decoder=mine", "decoder.width=32")
    assert config["imports"] == ["parts"] and config["decoder"]["width"] == 32
    plain = checked("decoder=lstm")
    assert config_hash(plain | {"imports": ["parts"]}) == config_hash(plain), (
        "where parts come from is not computed"
    )


def test_a_stored_config_imports_its_modules(site: Path) -> None:
    config = to_plain(checked())
    (site / "parts.py").write_text(PART.format(name="mine"))
    config |= {"imports": ["parts"], "decoder": {"name": "mine", "width": 1, "max_length": 2}}
    assert check(OmegaConf.create(config))["decoder"]["width"] == 1


def test_a_run_that_starts_from_another_needs_its_modules(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (site / f"{name}.py").write_text("")
    stored = checked("imports=[one]")
    monkeypatch.setattr("easycap.config.init_from.initial_run_config", lambda run: stored)
    words = ["imports=[two]"]
    config = compose(words).config
    assert list(with_defaults_of(config, parse(words)).imports) == ["one", "two"]


def test_a_recipe_names_modules(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (site / "parts.py").write_text(PART.format(name="mine"))
    recipes = site / "own" / "experiment" / "mine"
    recipes.mkdir(parents=True)
    start = "# @package _global_\ndefaults:\n"
    (recipes / "base.yaml").write_text(
        f"{start}  - override /decoder: mine\nimports: [parts]\ndecoder: {{width: 3}}\n"
    )
    (recipes / "next.yaml").write_text(f"{start}  - /experiment/mine/base\nseed: 8\n")
    monkeypatch.setenv("EASYCAP_CONFIG_DIR", str(site / "own"))
    config = checked("experiment=mine/next")
    assert (config["seed"], config["decoder"]["width"], config["imports"]) == (8, 3, ["parts"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "[absent]",
            "imports: no module absent in installed packages, on PYTHONPATH",
        ),
        ("[broken]", "imports: broken could not be imported: ValueError: not so"),
        (
            "[needing]",
            "imports: needing could not be imported: ModuleNotFoundError: No module named 'absent'",
        ),
        (
            "[broken.py]",
            "imports: 'broken.py' must be a module name, e.g. my_parts for the file my_parts.py",
        ),
        (
            "[around]",
            "imports: around could not be imported: HERE/around is a folder without __init__.py; is the",
        ),
        ("[a/b]", "imports: 'a/b' must be a module name"),
        ("parts", "imports=parts must be a list of module names: imports=[parts]"),
    ],
)
def test_what_cannot_be_imported_is_told_of(site: Path, word: str, message: str) -> None:
    (site / "broken.py").write_text("raise ValueError('not so')\n")
    (site / "needing.py").write_text("import absent\n")
    (site / "around" / "around").mkdir(parents=True)
    with pytest.raises(UserError) as error:
        compose([f"imports={word}"])
    assert str(error.value).startswith(message.replace("HERE", str(site)))


def test_the_help_lists_what_is_imported_and_what_is_in_folders(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site / "parts.py").write_text(PART.format(name="mine"))
    write_package(site, "packed", CONDITION, weather__sunny="name: sunny\nmax_length: 1\n")
    write_package(site, "bare", METRIC)
    (site / "own" / "sweep").mkdir(parents=True)
    (site / "own" / "sweep" / "two_widths.yaml").write_text("axes: {}\n")
    assert main(["train", "--config-dir", "own", "imports=[parts]", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = {
        line.split()[0]: line.split() for line in lines if " | " in line or line.startswith("  weather")
    }
    assert "mine" in listed["decoder"] and "two_widths" in listed["sweep"] and "sunny" in listed["weather"]
    assert any("without a YAML (not listed): bare" in line for line in lines)
    assert not {"packed", "bare"} & set(sys.modules)


# -------------------------------------------------------------------------------------------- signatures


class Kind(Enum):
    sum = 1
    mean = 2


@dataclass(frozen=True, kw_only=True)
class Limits(SharedSettings):
    longest: int
    shortest: int = 2


def part(
    channels: int, *, limits: Limits, width: int, kind: Kind = Kind.mean, size: tuple[int, int] = (3, 4)
) -> None:
    """A component whose YAML nobody wrote."""


def test_the_settings_of_a_signature() -> None:
    values = values_of_signature("part", part)
    expected = {
        "name": "part",
        "longest": "???",
        "shortest": 2,
        "width": "???",
        "kind": Kind.mean,
        "size": (3, 4),
    }
    assert values == expected


def test_an_option_of_a_signature_has_values_and_enums(site: Path) -> None:
    code = PART.format(name="mine") + "\n\nPart.__init__.__kwdefaults__['width'] = 4\n"
    write_package(site, "my_package", code)
    assert option_values("decoder", "mine") == {"name": "mine", "width": 4, "max_length": 20}


def test_a_setting_without_a_type_is_told_of(site: Path) -> None:
    write_package(site, "my_package", PART.format(name="mine").replace("width: int", "width"))
    with pytest.raises(
        UserError, match="my_package.Part: the setting width has no type: write e.g. width: int"
    ):
        checked("decoder=mine", "decoder.width=1")


def test_a_setting_of_a_type_that_yaml_has_not(site: Path) -> None:
    code = PART.format(name="mine").replace("width: int", "width: easycap.Captioner")
    write_package(site, "my_package", code)
    with pytest.raises(UserError, match=r"decoder.width: settings cannot be of type .*Captioner"):
        checked("decoder=mine", "decoder.width=1")


def test_the_same_class_may_be_registered_again_and_another_not(site: Path) -> None:
    def make(name: str) -> type:
        return type(name, (), {"__module__": "notebook", "__qualname__": name})

    first, again, other = make("Part"), make("Part"), make("Other")
    register("decoder", "mine")(first)
    register("decoder", "mine")(again)
    assert lookup("decoder", "mine") is again
    with pytest.raises(
        UserError, match=r"decoder=mine is registered twice, by notebook.Part and notebook.Other"
    ):
        register("decoder", "mine")(other)
