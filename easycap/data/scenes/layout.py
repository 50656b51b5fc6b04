"""Where things stand, so that each can be seen: rows on the ground, pairs of things, the sky."""

from __future__ import annotations

import random

from easycap.data.scenes.graph import Group, Spot
from easycap.data.scenes.tables import KINDS, PEOPLE, SEAT_HEIGHTS

SIDE = 256
LOOKS = 6
_MARGIN = 6
_FRONT = (230, 246)  # where things in front stand
_BACK = (180, 190)  # where things behind stand
_SADDLES = {"bicycle": (-8, 38), "horse": (-6, 58), "elephant": (-4, 72)}

Box = tuple[float, float, float, float]


def between(rng: random.Random, low: int, high: int) -> int:
    """Return a whole number from low to high, both included."""
    return low + int(rng.random() * (high - low + 1))


def extent(group: Group) -> tuple[int, int]:
    """Return width and height of one thing of the group as it is posed."""
    kind, wide, tall = KINDS[group.kind], 1.0, 1.0
    if group.kind in PEOPLE:
        wide, tall = _PERSON.get(group.action or "", (1.0, 1.0))
    elif group.action == "lying":
        tall = 0.7
    elif group.action == "running":
        wide = 1.1
    return round(kind.width * group.scale * wide), round(kind.height * group.scale * tall)


_PERSON = {"running": (1.25, 1.0), "sitting": (1.25, 0.68), "jumping": (1.2, 1.2)}


def boxes(group: Group) -> list[Box]:
    """Return left, top, right, bottom of each thing of a placed group."""
    wide, tall = extent(group)
    return [(s.x - wide / 2, s.y - tall, s.x + wide / 2, s.y) for s in group.spots]


def place(groups: list[Group], relation: str | None, rng: random.Random) -> list[tuple[Spot, ...]] | None:
    """Return the spots of every group, or None where they do not fit without hiding each other."""
    ground = [g for g in groups if not g.sky]
    if relation is None:
        spots = _row(ground, rng)
    elif relation in ("left of", "right of"):
        spots = _row(ground if relation == "left of" else ground[::-1], rng)
        if spots and relation == "right of":
            spots.reverse()
    else:
        main, other = ground
        spots = _PAIRS[relation](main, other, rng)
    if spots is None:
        return None
    for group in groups[len(ground) :]:
        taken = [box for g, s in zip(ground, spots, strict=True) for box in boxes(_at(g, s))]
        above = _sky(group, taken, rng)
        if above is None:
            return None
        spots.append(above)
    return spots


def _at(group: Group, spots: tuple[Spot, ...]) -> Group:
    return Group(group.kind, group.count, group.colour, group.size, group.action, group.sky, spots)


def _spot(rng: random.Random, x: float, y: float, flip: int | None = None) -> Spot:
    side = between(rng, 0, 1) if flip is None else flip
    return Spot(round(x), round(y), side, between(rng, 0, LOOKS - 1))


def _row(groups: list[Group], rng: random.Random) -> list[tuple[Spot, ...]] | None:
    """One line from left to right; free room goes outside and between groups."""
    widths = [extent(g)[0] for g in groups]
    inner, apart = 5, 16
    used = sum(w * g.count + inner * (g.count - 1) for w, g in zip(widths, groups, strict=True))
    room = SIDE - 2 * _MARGIN - used - apart * (len(groups) - 1)
    if room < 0:
        return None
    y, x, spots = between(rng, *_FRONT), _MARGIN + room * (0.2 + 0.6 * rng.random()) * 0.9, []
    stretch = min(room * 0.3, 40) * rng.random() if len(groups) > 1 else 0
    x -= stretch / 2 if x > _MARGIN + stretch / 2 else 0
    for width, group in zip(widths, groups, strict=True):
        flip, line = between(rng, 0, 1), []
        for _ in range(group.count):
            line.append(_spot(rng, x + width / 2, y - between(rng, 0, 6), flip))
            x += width + inner
        x += apart - inner + stretch
        spots.append(tuple(line))
    return spots


def _front(near: Group, far: Group, rng: random.Random) -> list[tuple[Spot, ...]] | None:
    """`near` stands before `far`, which stays visible on at least one side."""
    (wide, _), (behind, _) = extent(near), extent(far)
    used = wide * near.count + 5 * (near.count - 1)
    if used > 0.62 * behind:
        return None
    x = between(rng, _MARGIN + behind // 2, SIDE - _MARGIN - behind // 2)
    back = _spot(rng, x, between(rng, *_BACK))
    start = x - used / 2 + (rng.random() - 0.5) * (behind - used)
    y = between(rng, 238, 248)
    flip = between(rng, 0, 1)
    line = [_spot(rng, start + wide / 2 + i * (wide + 5), y, flip) for i in range(near.count)]
    return [tuple(line), (back,)]


def _on(top: Group, support: Group, rng: random.Random) -> list[tuple[Spot, ...]] | None:
    """`top` sits or lies on `support`."""
    (wide, _), (below, _) = extent(top), extent(support)
    used = wide * top.count + 2 * (top.count - 1)
    seat = round(below * 0.9)
    if used > seat and not (support.kind == "chair" and top.count == 1):
        return None
    x, y = between(rng, _MARGIN + below // 2, SIDE - _MARGIN - below // 2), between(rng, *_FRONT)
    start = x - used / 2 + (rng.random() - 0.5) * max(seat - used, 0)
    height, flip = SEAT_HEIGHTS[support.kind], between(rng, 0, 1)
    line = [_spot(rng, start + wide / 2 + i * (wide + 2), y - height, flip) for i in range(top.count)]
    return [tuple(line), (_spot(rng, x, y),)]


def _under(below: Group, shelter: Group, rng: random.Random) -> list[tuple[Spot, ...]] | None:
    """`below` stands under the crown, on one side of the stem."""
    (wide, _), (crown, _) = extent(below), extent(shelter)
    x, y = between(rng, 30 + crown // 2, SIDE - 30 - crown // 2), between(rng, 226, 238)
    side = 1 if rng.random() < 0.5 else -1
    spot = _spot(rng, x + side * (wide / 2 + 5), y + between(rng, 4, 8))
    return [(spot,), (_spot(rng, x, y, 0),)]


def _riding(rider: Group, mount: Group, rng: random.Random) -> list[tuple[Spot, ...]] | None:
    wide = extent(mount)[0]
    x, y = between(rng, _MARGIN + wide // 2, SIDE - _MARGIN - wide // 2), between(rng, *_FRONT)
    under = _spot(rng, x, y)
    back, height = (v * mount.scale for v in _SADDLES[mount.kind])
    seat = x + (-back if under.flip else back)
    return [(_spot(rng, seat, y - height, under.flip),), (under,)]


def hand(kind: str, spot: Spot) -> tuple[float, float]:
    """Return where the raised hand of a person with action None is."""
    tall = KINDS[kind].height
    reach = 0.24 * tall
    return spot.x + (-reach if spot.flip else reach), spot.y - 0.66 * tall


def _holding(person: Group, held: Group, rng: random.Random) -> list[tuple[Spot, ...]] | None:
    holder = _spot(rng, between(rng, 70, SIDE - 70), between(rng, *_FRONT))
    x, y = hand(person.kind, holder)
    lift = 26 if held.kind == "balloon" else -10
    return [(holder,), (_spot(rng, x, y - lift, 0),)]


def _flying(person: Group, kite: Group, rng: random.Random) -> list[tuple[Spot, ...]] | None:
    flip = between(rng, 0, 1)
    x = between(rng, 104, 226) if flip else between(rng, 30, 152)
    holder = _spot(rng, x, between(rng, *_FRONT), flip)
    away = between(rng, 54, 74)
    return [(holder,), (_spot(rng, x - away if flip else x + away, between(rng, 76, 100), flip),)]


_PAIRS = {
    "in front of": _front,
    "on": _on,
    "under": _under,
    "riding": _riding,
    "holding": _holding,
    "flying": _flying,
}


def _sky(group: Group, taken: list[Box], rng: random.Random) -> tuple[Spot, ...] | None:
    """Scatter the group over the upper part, clear of everything below."""
    wide, tall = extent(group)
    used = (wide + 8) * group.count
    for _ in range(6):
        x = _MARGIN + rng.random() * (SIDE - 2 * _MARGIN - used)
        y, flip = between(rng, tall + 8, max(tall + 14, 104)), between(rng, 0, 1)
        line = []
        for i in range(group.count):
            line.append(
                _spot(rng, x + i * (wide + 8) + wide / 2, max(tall + 4, y - between(rng, 0, 14)), flip)
            )
        if not any(_touch(a, b) for a in boxes(_at(group, tuple(line))) for b in taken):
            return tuple(line)
    return None


def _touch(a: Box, b: Box) -> bool:
    return a[0] < b[2] + 6 and b[0] < a[2] + 6 and a[1] < b[3] + 6 and b[1] < a[3] + 6
