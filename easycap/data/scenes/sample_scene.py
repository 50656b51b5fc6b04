"""Random scenes. Only `random.random` is used, so that a seed gives the same scene on any machine."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import TypeVar

from easycap.data.scenes import layout
from easycap.data.scenes.graph import Group, Scene
from easycap.data.scenes.tables import (
    BACKDROPS,
    HELD,
    KINDS,
    NOVEL_PAIRS,
    PEOPLE,
    RELATIONS,
    RIDDEN,
    SETTINGS,
    SHELTERS,
    SIZES,
    SUPPORTS,
    UNDER_HEIGHTS,
)

T = TypeVar("T")
BACKDROP_LOOKS = 4
_HELD_OUT = frozenset(NOVEL_PAIRS)
_COUNTS = (0.5, 0.24, 0.16, 0.1)  # of 1, 2, 3, 4 things


def pick(rng: random.Random, choices: Sequence[T]) -> T:
    """Return one of `choices`, each equally likely."""
    return choices[int(rng.random() * len(choices))]


def weighted(rng: random.Random, choices: Iterable[tuple[T, float]]) -> T:
    """Return one of (choice, weight) in proportion to the weights."""
    choices = list(choices)
    point = rng.random() * sum(weight for _, weight in choices)
    for choice, weight in choices:
        point -= weight
        if point < 0:
            return choice
    return choices[-1][0]


def sample(rng: random.Random, *, novel: bool = False) -> Scene:
    """Return a random scene without held-out (colour, thing) pairs, or with at least one if `novel`."""
    while True:
        scene = _attempt(rng, novel)
        if scene is not None and novel == bool(pairs(scene) & _HELD_OUT):
            return scene


def pairs(scene: Scene) -> set[tuple[str, str]]:
    """Return the (colour, thing) pairs of a scene."""
    return {(g.colour, g.kind) for g in scene.groups if g.colour}


def _attempt(rng: random.Random, novel: bool) -> Scene | None:
    name = pick(rng, tuple(SETTINGS))
    setting = SETTINGS[name]
    people = [kind for kind in setting.mains if kind in PEOPLE]
    others = [kind for kind in setting.mains if kind not in PEOPLE]
    main = pick(rng, people if people and rng.random() < 0.45 else others)
    relation, partner = _partner(rng, main, (*setting.mains, *setting.partners, *setting.partners))
    groups = [_group(rng, main, novel, _most(relation, KINDS[main].most))]
    if relation and partner:
        most = min(KINDS[partner].most, 2) if relation == "beside" else 1
        groups.append(_group(rng, partner, novel, most))
        groups = _posed(rng, relation, *groups)
        if not _fits(relation, *groups):
            return None
    if relation == "beside":
        relation = "left of" if rng.random() < 0.5 else "right of"
    flyers = [kind for kind in setting.sky if all(kind != g.kind for g in groups)]
    if flyers and rng.random() < 0.3:
        groups.append(_flyer(rng, pick(rng, flyers), novel))
    spots = layout.place(groups, relation, rng)
    if spots is None:
        return None
    weather = pick(rng, setting.weather) if setting.weather else None
    placed = tuple(replace(g, spots=s) for g, s in zip(groups, spots, strict=True))
    return Scene(name, weather, int(rng.random() * BACKDROP_LOOKS), relation, placed)


def _group(rng: random.Random, kind: str, novel: bool, most: int) -> Group:
    entry = KINDS[kind]
    count = weighted(rng, [(n + 1, _COUNTS[n]) for n in range(most)])
    size = pick(rng, tuple(SIZES)) if entry.sized else None
    action = pick(rng, entry.actions) if entry.actions else None
    return Group(kind, count, _colour(rng, kind, novel), size, action)


def _colour(rng: random.Random, kind: str, novel: bool) -> str | None:
    colours = KINDS[kind].colours
    held_out = [c for c in colours if (c, kind) in _HELD_OUT]
    if novel and held_out:
        return held_out[0]
    return pick(rng, [c for c in colours if c not in held_out]) if colours else None


def _flyer(rng: random.Random, kind: str, novel: bool) -> Group:
    group = _group(rng, kind, novel, KINDS[kind].most)
    return replace(group, action="flying", sky=True, size=None)


def _most(relation: str | None, most: int) -> int:
    """Pairs that hang together are one and one, or (on, in front of) at most two."""
    if relation in ("riding", "holding", "flying", "under"):
        return 1
    return min(most, 2) if relation in ("on", "in front of") else most


def _partner(rng: random.Random, main: str, kinds: tuple[str, ...]) -> tuple[str | None, str | None]:
    """Return a relation and the kind it is to, or (None, None) for a main group alone."""
    options = _options(main, kinds)
    if rng.random() < 0.2:
        return None, None
    feasible = [(name, RELATIONS[name]) for name in RELATIONS if options[name]]
    if not feasible:
        return None, None
    relation = weighted(rng, feasible)
    return relation, pick(rng, options[relation])


@cache
def _options(main: str, kinds: tuple[str, ...]) -> dict[str, list[str]]:
    """Return which of `kinds` can be in each relation to `main`; not to be changed, as it is kept."""
    return {name: [k for k in kinds if k != main and _possible(name, main, k)] for name in RELATIONS}


def _possible(relation: str, main: str, other: str) -> bool:
    person = main in PEOPLE
    match relation:
        case "beside":
            return other not in ("balloon", "kite")
        case "in front of":
            return (
                other in BACKDROPS and main not in BACKDROPS and KINDS[main].width < 0.6 * KINDS[other].width
            )
        case "on":
            return main in SUPPORTS.get(other, ())
        case "under":
            return other in SHELTERS and KINDS[main].width < 60 and main not in ("bicycle", "balloon")
        case "riding":
            return person and other in RIDDEN
        case "holding":
            return person and other in HELD
        case _:
            return person and other == "kite"


def _posed(rng: random.Random, relation: str, first: Group, second: Group) -> list[Group]:
    """Give both things the pose and size that the relation shows."""
    if relation == "on":
        person = first.kind in PEOPLE
        rests = {"cat": ("sitting", "lying"), "dog": ("lying",), "bird": ("standing",)}
        action = "sitting" if person else pick(rng, rests.get(first.kind, (None,)))
        first = replace(first, action=action, size="small" if first.size else None)
    if relation in ("riding", "holding", "flying"):
        first = replace(first, action=None)
        second = replace(second, action="flying" if relation == "flying" else None, sky=False)
        if second.kind == "elephant":
            second = replace(second, size="big")
    if relation in ("under", "in front of"):
        first = replace(first, size="small" if first.size else None)
        second = replace(second, size="big" if second.size else None)
        if first.action == "jumping":
            first = replace(first, action="standing")
    return [first, second]


def _fits(relation: str, first: Group, second: Group) -> bool:
    if relation != "under":
        return True
    wide, tall = layout.extent(first)
    return tall <= UNDER_HEIGHTS[second.kind] * second.scale and wide <= 0.62 * layout.extent(second)[0]
