"""Men, women, boys and girls: distinguished by size, hair and dress; the colour is what they wear."""

from __future__ import annotations

from typing import NamedTuple

from easycap.data.scenes.brush import RGB, Brush, Point

_SKINS: tuple[RGB, ...] = ((255, 219, 180), (234, 184, 140), (198, 136, 92), (120, 76, 48))
_HAIR: tuple[RGB, ...] = (
    (58, 36, 24),
    (36, 28, 26),
    (24, 20, 22),
    (16, 14, 18),
    (214, 150, 40),
    (110, 52, 22),
)
_TROUSERS: tuple[RGB, ...] = ((178, 152, 112), (120, 128, 146), (196, 178, 146))
_SHOES: RGB = (44, 36, 34)


class _Body(NamedTuple):
    """Joint heights and sizes of a person, in units, before the pose moves them."""

    hip: float
    shoulder: float
    head: float
    radius: float
    limb: float
    broad: float
    dress: bool
    clothes: RGB
    skin: RGB
    legs: RGB


def draw_person(brush: Brush, kind: str, colour: RGB, pose: str, look: int) -> None:
    """Draw a person facing right posed standing, running, sitting, jumping, seat, ride or hold."""
    dress = kind in ("woman", "girl")
    skin = _SKINS[look % 4]
    legs = skin if dress else _TROUSERS[look % 3]
    if kind in ("man", "woman"):
        body = _Body(44, 78, 93, 13, 9, 12, dress, colour, skin, legs)
    else:
        body = _Body(24, 45, 58, 12.5, 7.5, 9.5, dress, colour, skin, legs)
    lift, leg_lines = _POSES_OF_LEGS.get(pose, _stand)(body)
    hair = _HAIR[look]
    if dress:
        _long_hair(brush, body, hair, lift, child=kind == "girl")
    arms = _arms(body, pose, lift)
    for line in leg_lines:
        brush.limb(line, body.limb + (0 if dress else 1.5), body.legs)
        brush.limb([line[-1], (line[-1][0] + 4, line[-1][1])], 7, _SHOES)
    brush.limb(arms[0], body.limb - 1, body.clothes)
    _torso(brush, body, pose, lift)
    for arm in arms:
        brush.limb(arm, body.limb - 1.5, body.clothes)
        brush.ellipse(*arm[-1], 4, 4, body.skin)
    _head(brush, body, hair, lift, child=kind == "boy")


def _stand(body: _Body) -> tuple[float, list[list[Point]]]:
    half = body.broad * 0.5
    return 0, [[(-half, body.hip), (-half, 4)], [(half, body.hip), (half, 4)]]


def _run(body: _Body) -> tuple[float, list[list[Point]]]:
    hip, reach = body.hip, body.hip * 0.62
    back = [(-2.0, hip), (-reach * 0.5, hip * 0.52), (-reach * 1.35, hip * 0.42)]
    front = [(2.0, hip), (reach * 0.85, hip * 0.66), (reach * 0.95, 4.0)]
    return 0, [back, front]


def _sit(body: _Body) -> tuple[float, list[list[Point]]]:
    drop = body.hip - 8
    long = body.hip * 0.95
    return -drop, [[(0, 9), (long * 0.5, 15), (long, 4)], [(0, 7), (long * 0.6, 8), (long * 1.05, 4)]]


def _jump(body: _Body) -> tuple[float, list[list[Point]]]:
    lift, hip = 16.0, body.hip + 16
    knee = body.hip * 0.42
    left = [(-3.0, hip), (-knee, hip - body.hip * 0.5), (-knee * 1.5, lift + 4)]
    right = [(3.0, hip), (knee, hip - body.hip * 0.5), (knee * 1.5, lift + 4)]
    return lift, [left, right]


def _seat(body: _Body) -> tuple[float, list[list[Point]]]:
    drop, down = body.hip - 5, -body.hip * 0.5
    half = body.broad * 0.55
    return -drop, [[(-half, 6), (-half, down)], [(half, 6), (half, down)]]


def _ride(body: _Body) -> tuple[float, list[list[Point]]]:
    knee, foot = (body.hip * 0.36, -body.hip * 0.16), (body.hip * 0.22, -body.hip * 0.6)
    return -(body.hip - 4), [[(-2, 6), knee, foot]]


_POSES_OF_LEGS = {
    "running": _run,
    "sitting": _sit,
    "jumping": _jump,
    "seat": _seat,
    "ride": _ride,
}


def _arms(body: _Body, pose: str, lift: float) -> list[list[Point]]:
    """The far arm first."""
    y, broad, long = body.shoulder + lift - 4, body.broad, (body.shoulder - body.hip) * 1.05
    hang = [[(s * broad * 0.9, y), (s * (broad + 5), y - long)] for s in (-1, 1)]
    if pose == "jumping":
        return [[(s * broad * 0.8, y), (s * (broad + 9), y + long * 0.95)] for s in (-1, 1)]
    if pose == "running":
        forward = [(2, y), (broad + 4, y - long * 0.55), (broad + 12, y - long * 0.1)]
        backward = [(-2, y), (-broad - 8, y - long * 0.5), (-broad - 4, y - long * 0.95)]
        return [forward, backward]
    if pose == "hold":
        tall = body.head + body.radius + 2
        return [hang[0], [(broad * 0.8, y), (0.24 * tall, 0.66 * tall)]]
    if pose == "ride":
        return [[(2, y), (broad + 12, y - long * 0.6)]]
    if pose == "sitting":
        return [[(-broad * 0.7, y), (-broad - 8, y - long)], [(broad * 0.6, y), (broad + 10, y - long * 0.7)]]
    return hang


def _torso(brush: Brush, body: _Body, pose: str, lift: float) -> None:
    top, broad = body.shoulder + lift, body.broad
    if not body.dress:
        brush.limb([(-broad * 0.5, top - 4), (broad * 0.5, top - 4)], broad, body.clothes)
        brush.box(-broad, body.hip + lift - 3, broad, top - 4, body.clothes)
        return
    hem = (
        body.hip * 0.42 + lift
        if pose in ("standing", "running", "jumping", "hold", "")
        else body.hip + lift - 7
    )
    wide = broad * (1.75 if pose in ("standing", "jumping", "hold", "") else 1.55)
    brush.limb([(-broad * 0.4, top - 4), (broad * 0.4, top - 4)], broad * 0.9, body.clothes)
    brush.polygon([(-broad * 0.8, top - 2), (broad * 0.8, top - 2), (wide, hem), (-wide, hem)], body.clothes)


def _long_hair(brush: Brush, body: _Body, hair: RGB, lift: float, *, child: bool) -> None:
    y, r = body.head + lift, body.radius
    if child:  # two tails
        for side in (-1, 1):
            brush.limb([(side * r * 0.9, y + 2), (side * (r + 7), y - r * 0.7)], 8, hair)
        return
    brush.limb([(-r * 0.62, y + 2), (-r * 0.8, y - r * 1.7)], r * 0.9, hair)
    brush.limb([(r * 0.62, y + 2), (r * 0.8, y - r * 1.7)], r * 0.9, hair)


def _head(brush: Brush, body: _Body, hair: RGB, lift: float, *, child: bool) -> None:
    y, r = body.head + lift, body.radius
    brush.ellipse(0, y, r, r, hair)
    brush.ellipse(1.5, y - 2.5, r * 0.86, r * 0.82, body.skin, shade=True)
    if child:  # a boy's cap-like fringe
        brush.box(-r * 0.2, y + r * 0.25, r * 1.25, y + r * 0.55, hair)
    for x in (-2.5, 6.5):
        brush.ellipse(x, y - 1.5, 1.5, 1.9, (30, 26, 30), shade=True)
    brush.limb([(0, y - 7), (4.5, y - 7)], 1.4, (160, 60, 60), shade=True)
