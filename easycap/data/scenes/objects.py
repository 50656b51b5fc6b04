"""Vehicles, furniture, toys and plants, each with a silhouette of its own; vehicles face right."""

from __future__ import annotations

import math

from easycap.data.scenes.brush import DARK, RGB, Brush, darker, lighter

_GLASS: RGB = (196, 228, 246)
_WOOD: RGB = (112, 72, 40)
_METAL: RGB = (96, 98, 108)


def _wheel(brush: Brush, x: float, r: float) -> None:
    brush.ellipse(x, r, r, r, (44, 44, 50))
    brush.ellipse(x, r, r * 0.45, r * 0.45, (200, 202, 206), shade=True)


def car(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    brush.polygon([(-30, 24), (-20, 44), (14, 44), (28, 24)], colour)
    brush.limb([(-38, 20), (38, 20)], 17, colour)
    brush.polygon([(-23, 26), (-16, 40), (-3, 40), (-3, 26)], _GLASS, shade=True)
    brush.polygon([(2, 26), (2, 40), (12, 40), (21, 26)], _GLASS, shade=True)
    brush.ellipse(43, 22, 3, 3, (255, 240, 150), shade=True)
    for x in (-24, 24):
        _wheel(brush, x, 10)


def truck(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    """A box body in white-gray behind a coloured cab would hide the colour: all of it is painted."""
    brush.box(-56, 14, 18, 68, colour)
    brush.polygon([(22, 14), (56, 14), (56, 32), (46, 52), (22, 52)], colour)
    brush.box(16, 14, 26, 22, _METAL)
    brush.box(-50, 20, 12, 24, darker(colour, 0.7) if sum(colour) > 180 else lighter(colour), shade=True)
    brush.polygon([(32, 34), (52, 34), (44, 48), (32, 48)], _GLASS, shade=True)
    for x in (-42, -20, 40):
        _wheel(brush, x, 11)


def bus(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    brush.limb([(-60, 18), (60, 18)], 12, colour)
    brush.limb([(-60, 68), (60, 68)], 12, colour)
    brush.box(-66, 18, 66, 68, colour)
    for x in (-54, -34, -14, 6, 26):
        brush.box(x - 7, 44, x + 8, 62, _GLASS, shade=True)
    brush.box(42, 18, 58, 62, _GLASS, shade=True)
    brush.box(-64, 34, 38, 37, darker(colour, 0.75) if sum(colour) > 180 else lighter(colour), shade=True)
    for x in (-40, 32):
        _wheel(brush, x, 12)


def bicycle(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    tyre = (50, 50, 56)
    for x in (-22, 22):
        points = [
            (x + 15 * math.cos(a * math.pi / 8), 16 + 15 * math.sin(a * math.pi / 8)) for a in range(17)
        ]
        brush.limb(points, 3.5, tyre)
    frame = [(-22, 16), (-10, 36), (14, 36), (-2, 16), (-22, 16)]
    brush.limb(frame, 5.5, colour)
    brush.limb([(-2, 16), (-11, 40)], 5.5, colour)
    brush.limb([(22, 16), (13, 44)], 5.5, colour)
    brush.limb([(9, 48), (18, 46)], 4.5, DARK)
    brush.limb([(-16, 42), (-6, 42)], 5, DARK)


def boat(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    """A sailing boat; hull and sail share the colour."""
    brush.limb([(0, 18), (0, 88)], 4, _WOOD)
    brush.polygon([(4, 26), (4, 86), (32, 30)], colour)
    brush.polygon([(-4, 28), (-4, 74), (-24, 30)], lighter(colour, 0.35))
    brush.polygon([(-34, 20), (34, 20), (24, 0), (-24, 0)], colour)
    brush.limb([(-24, 0), (26, 0)], 3, (214, 236, 250))


def plane(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    brush.polygon([(-34, 16), (-26, 16), (-28, 34), (-37, 34)], darker(colour, 0.8))
    brush.limb([(-28, 15), (26, 14)], 13, colour)
    brush.polygon([(-8, 13), (10, 13), (-8, -4), (-18, -4)], darker(colour, 0.8))
    for x in (-14, -4, 6, 16):
        brush.ellipse(x, 17, 2.4, 2.4, (60, 90, 140), shade=True)
    brush.polygon([(24, 20), (31, 15), (24, 15)], _GLASS, shade=True)


def kite(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    brush.limb([(-2, 20), (-8, 12), (-2, 6), (-8, 0)], 3.5, colour)
    brush.polygon([(0, 60), (19, 42), (0, 18), (-19, 42)], colour)
    brush.limb([(0, 58), (0, 20)], 2, darker(colour, 0.6), shade=True)
    brush.limb([(-17, 42), (17, 42)], 2, darker(colour, 0.6), shade=True)


def balloon(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    brush.polygon([(-4, 0), (4, 0), (0, 6)], colour)
    brush.ellipse(0, 24, 17, 20, colour)
    brush.ellipse(-6, 31, 4, 6, lighter(colour, 0.6), shade=True)


def ball(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    brush.ellipse(0, 16, 16, 16, colour)
    brush.limb([(-14, 12), (0, 17), (14, 12)], 4, (252, 252, 252), shade=True)
    brush.ellipse(-5, 24, 4, 3, lighter(colour, 0.6), shade=True)


def umbrella(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    """A parasol in the ground, or a smaller one held by its handle."""
    wide, stem, dome = (40, 40, 32) if pose == "held" else (50, 84, 40)
    brush.limb([(0, 2), (0, stem + 6)], 5, _WOOD)
    points = [
        (wide * math.cos(a * math.pi / 12), stem + dome * math.sin(a * math.pi / 12)) for a in range(13)
    ]
    brush.polygon(points, colour)
    for x in (-0.34, 0.34):
        brush.limb([(wide * x, stem + 1), (0, stem + dome - 2)], 2.2, darker(colour, 0.65), shade=True)
    brush.limb([(0, stem + dome), (0, stem + dome + 4)], 3, _WOOD)


def chair(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    """From the side: back, seat and two legs."""
    brush.limb([(-16, 62), (-16, 4)], 8, colour)
    brush.limb([(15, 26), (15, 4)], 7, colour)
    brush.limb([(-16, 25), (16, 25)], 10, colour)


def bench(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    for x in (-36, 36):
        brush.limb([(x, 40), (x, 3)], 6, _METAL)
    for y in (23, 34, 44):
        brush.limb([(-43, y), (43, y)], 7, colour)


def sofa(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    for x in (-50, 50):
        brush.limb([(x, 8), (x, 2)], 6, _WOOD)
    brush.limb([(-48, 48), (48, 48)], 18, colour)
    brush.box(-56, 10, 56, 48, colour)
    brush.limb([(-40, 22), (-3, 22)], 12, lighter(colour, 0.3), shade=True)
    brush.limb([(4, 22), (40, 22)], 12, lighter(colour, 0.3), shade=True)
    for x in (-54, 54):
        brush.limb([(x, 14), (x, 32)], 15, darker(colour, 0.85))


def table(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    for x in (-38, 38):
        brush.limb([(x, 42), (x, 3)], 7, darker(colour, 0.85))
    brush.box(-48, 40, 48, 50, colour)


def vase(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    """A vase of flowers; the colour is the vase's."""
    for x, y in ((-9, 42), (9, 43), (0, 50)):
        brush.limb([(0, 24), (x, y)], 3, (40, 130, 60))
    brush.polygon([(-6, 30), (6, 30), (12, 14), (8, 0), (-8, 0), (-12, 14)], colour)
    for x, y in ((-9, 42), (9, 43), (0, 50)):
        brush.ellipse(x, y, 6, 6, (255, 244, 250))
        brush.ellipse(x, y, 2.4, 2.4, (250, 190, 40), shade=True)


def tree(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    leaf = ((44, 138, 60), (60, 150, 50), (30, 122, 66))[look % 3]
    brush.limb([(0, 60), (0, 5)], 14, _WOOD)
    for x, y, r in ((-20, 66, 22), (20, 66, 22), (-12, 88, 23), (13, 90, 23), (0, 74, 25), (0, 97, 20)):
        brush.ellipse(x, y, r, r, leaf)
    for x, y in ((-16, 78), (12, 94), (16, 68)):
        brush.ellipse(x, y, 8, 5, lighter(leaf, 0.22), shade=True)


def tent(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    brush.polygon([(-52, 0), (-4, 70), (4, 70), (52, 0)], colour)
    brush.polygon([(-17, 0), (0, 52), (17, 0)], (52, 44, 50), shade=True)
    brush.polygon([(17, 0), (0, 52), (26, 0)], lighter(colour, 0.45), shade=True)


def snowman(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    white = (252, 252, 255)
    for side in (-1, 1):
        brush.limb([(side * 14, 40), (side * 26, 50)], 3.5, _WOOD)
    brush.ellipse(0, 18, 20, 18, white)
    brush.ellipse(0, 42, 15, 14, white)
    brush.ellipse(0, 62, 11, 11, white)
    brush.box(-12, 68, 12, 72, DARK)
    brush.box(-8, 70, 8, 82, DARK)
    brush.limb([(-10, 52), (10, 52)], 5, (220, 50, 50))
    brush.polygon([(2, 63), (15, 60), (2, 58)], (250, 140, 30))
    for x in (-3, 5):
        brush.ellipse(x, 66, 1.8, 1.8, DARK, shade=True)


OBJECTS = {
    shape.__name__: shape
    for shape in (
        car,
        truck,
        bus,
        bicycle,
        boat,
        plane,
        kite,
        balloon,
        ball,
        umbrella,
        chair,
        bench,
        sofa,
        table,
        vase,
        tree,
        tent,
        snowman,
    )
}
