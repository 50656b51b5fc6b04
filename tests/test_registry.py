"""A component's signature says what is a setting and what is supplied at run time."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import pytest

from easycap.errors import UserError
from easycap.registry import SharedSettings, construct, groups, lookup, names, settings_of, supplied_to

COMPONENTS = [(group, name) for group in groups() if group != "scorer" for name in names(group)]


@dataclass(frozen=True, kw_only=True)
class Limits(SharedSettings):
    longest: int
    words: tuple[str, ...]


class Part:
    def __init__(self, channels: int, ids: list[int], *, width: int | None, limits: Limits) -> None:
        self.values = (channels, ids, width, limits)


def test_settings_stand_after_the_star_and_shared_ones_are_spread_out() -> None:
    assert settings_of(Part) == {"width": int | None, "longest": int, "words": tuple[str, ...]}
    assert supplied_to(Part) == ["channels", "ids"]


def test_a_part_gets_what_it_asks_for() -> None:
    settings = {"width": 3, "longest": 4, "words": ("a",)}
    part = construct(Part, settings, {"ids": [1], "channels": 2, "vocab_size": 9})
    assert part.values == (2, [1], 3, Limits(longest=4, words=("a",)))
    assert settings == {"width": 3, "longest": 4, "words": ("a",)}


def test_what_nothing_supplies_is_named() -> None:
    with pytest.raises(UserError, match=r"Part asks for 'ids'.*supplied are: channels"):
        construct(Part, {"width": 3, "longest": 4, "words": ()}, {"channels": 2})


@pytest.mark.parametrize(("group", "name"), COMPONENTS)
def test_a_component_has_no_default_of_its_own(group: str, name: str) -> None:
    """The YAML states every value; a second default in code could differ from it."""
    parameters = inspect.signature(lookup(group, name)).parameters.values()
    assert all(parameter.default is parameter.empty for parameter in parameters)
    assert {parameter.kind for parameter in parameters} <= {
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    }
