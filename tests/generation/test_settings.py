"""Settings out of range are refused in words, and the YAML files state exactly the settings there are."""

from __future__ import annotations

import re

import pytest
import yaml
from helpers.toy_decoder import ToyDecoder, made, tables

import easycap.generation.beam
import easycap.generation.consensus
import easycap.generation.diverse_beam
import easycap.generation.greedy
import easycap.generation.sample  # noqa: F401
from easycap.generation.beam import OnEnd
from easycap.registry import lookup, names, settings_of
from easycap.utils.paths import config_dir

OWN = {
    "greedy": {},
    "beam": {"num_beams": 3, "length_penalty": 1.0, "early_stopping": False, "on_end": OnEnd.refill},
    "diverse_beam": {
        "num_beams": 4,
        "num_groups": 2,
        "diversity_strength": 0.5,
        "length_penalty": 1.0,
        "early_stopping": False,
        "num_samples": 1,
    },
    "consensus": {
        "neighbours": 0,
        "whiten": None,
        "by_similarity": True,
        "likelihood": 0.1,
        "num_draws": 3,
        "temperature": 1.0,
        "num_beams": 2,
        "length_penalty": 1.0,
        "seed": 1,
    },
    "sample": {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "num_samples": 1, "seed": 1},
}
WRONG = [
    *((name, setting, value) for name in OWN for setting, value in [
        ("max_length", 0), ("max_length", -3), ("min_length", -1), ("no_repeat_ngram", -1), ("max_length", 99)
    ]),
    ("beam", "num_beams", 0),
    ("beam", "length_penalty", float("nan")),
    ("beam", "length_penalty", float("inf")),
    ("beam", "length_penalty", 1000.0),
    ("diverse_beam", "num_beams", 0),
    ("diverse_beam", "num_groups", 0),
    ("diverse_beam", "num_groups", 3),
    ("diverse_beam", "diversity_strength", -0.1),
    ("diverse_beam", "diversity_strength", float("inf")),
    ("diverse_beam", "diversity_strength", float("nan")),
    ("diverse_beam", "length_penalty", 1000.0),
    ("diverse_beam", "num_samples", 0),
    ("diverse_beam", "num_samples", 5),
    ("consensus", "num_draws", -1),
    ("consensus", "neighbours", -1),
    ("consensus", "whiten", 0),
    ("consensus", "likelihood", -0.1),
    ("consensus", "likelihood", float("nan")),
    ("consensus", "likelihood", float("inf")),
    ("consensus", "num_beams", -1),
    ("consensus", "temperature", 0.0),
    ("consensus", "length_penalty", 1000.0),
    ("sample", "temperature", 0.0),
    ("sample", "temperature", -1.0),
    ("sample", "temperature", float("nan")),
    ("sample", "temperature", float("inf")),
    ("sample", "top_k", -1),
    ("sample", "top_p", 0.0),
    ("sample", "top_p", 1.1),
    ("sample", "top_p", float("nan")),
    ("sample", "num_samples", 0),
]  # fmt: skip


def generate(name: str, **changes):
    return made(lookup("decoding", name), **{**OWN[name], **changes})(ToyDecoder(9, 6), tables(2, 9))


def test_every_way_of_decoding_is_covered():
    assert names("decoding") == sorted(OWN)


@pytest.mark.parametrize(("name", "setting", "value"), WRONG)
def test_a_setting_out_of_range_is_named(name, setting, value):
    with pytest.raises(ValueError, match=rf"decoding\.{setting}={re.escape(str(value))}\b"):
        generate(name, **{setting: value})


@pytest.mark.parametrize("name", sorted(OWN))
def test_min_length_above_the_limit_is_refused(name):
    with pytest.raises(ValueError, match=r"decoding\.min_length=4 must not exceed decoding\.max_length=3"):
        generate(name, min_length=4, max_length=3)
    with pytest.raises(ValueError, match=r"decoding\.min_length=7 must not exceed decoder\.max_length=6"):
        generate(name, min_length=7)


@pytest.mark.parametrize("name", sorted(OWN))
def test_no_images_no_captions(name):
    generator = made(lookup("decoding", name), **OWN[name])
    generated = generator(ToyDecoder(9, 6), tables(0, 9))
    assert len(generated.words) == len(generated.scores) == 0


@pytest.mark.parametrize("name", sorted(OWN))
def test_yaml_states_every_setting_and_nothing_else(name):
    stated = yaml.safe_load((config_dir() / "decoding" / f"{name}.yaml").read_text())
    assert stated.pop("name") == name
    assert set(stated) == set(settings_of(lookup("decoding", name)))
