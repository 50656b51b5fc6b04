"""Animals, drawn facing right, each with a silhouette of its own."""

from __future__ import annotations

from easycap.data.scenes.brush import DARK, RGB, Brush, Point, darker, lighter

_WHITE: RGB = (252, 252, 252)
_BLACK: RGB = (34, 34, 40)
_PINK: RGB = (250, 170, 180)


def _eye(brush: Brush, x: float, y: float, colour: RGB, r: float = 2.0) -> None:
    brush.ellipse(x, y, r, r, _WHITE if sum(colour) < 180 else DARK, shade=True)


def _legs(brush: Brush, xs: tuple[float, ...], top: float, width: float, colour: RGB, pose: str) -> None:
    """Four legs: straight, or stretched out fore and aft when running."""
    middle, reach = sum(xs) / len(xs), top * 0.62
    for i, x in enumerate(xs):
        foot = x
        if pose == "running":
            foot = x + (reach if x > middle else -reach) * (1.0 if i in (0, 3) else 0.55)
        shade = darker(colour, 0.82) if i in (1, 3) else colour
        brush.limb([(x, top), (foot, width / 2)], width, shade)


def dog(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    if pose == "lying":
        brush.ellipse(-3, 11, 25, 11, colour)
        brush.limb([(8, 4), (26, 4)], 8, colour)
        brush.limb([(-26, 8), (-32, 14)], 5, colour)
        _dog_head(brush, 21, 22, colour)
        return
    _legs(brush, (-18, -12, 12, 18), 18, 7, colour, pose)
    brush.limb([(-17, 22), (14, 23)], 17, colour)
    brush.limb([(-23, 26), (-31, 38)], 5.5, colour)
    brush.limb([(14, 25), (19, 33)], 12, colour)
    _dog_head(brush, 21, 37, colour)


def _dog_head(brush: Brush, x: float, y: float, colour: RGB) -> None:
    brush.ellipse(x, y, 10, 9, colour)
    brush.limb([(x + 6, y - 3), (x + 13, y - 4)], 8, colour)
    brush.limb(
        [(x - 6, y + 4), (x - 8, y - 7)],
        6.5,
        darker(colour, 0.6) if sum(colour) > 180 else lighter(colour, 0.3),
    )
    brush.ellipse(x + 16, y - 3, 2.8, 2.6, DARK)
    _eye(brush, x + 3, y + 2, colour)


def cat(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    """Pointed ears and a long tail; sits upright, stands with the tail up, or lies curled."""
    if pose == "lying":
        brush.ellipse(-2, 10, 21, 10, colour)
        brush.limb([(-18, 5), (-4, 3), (8, 3)], 5, darker(colour, 0.8))
        _cat_head(brush, 14, 18, colour)
    elif pose == "sitting":
        brush.limb([(-10, 4), (-20, 6), (-21, 18)], 5, colour)
        brush.polygon([(-13, 0), (11, 0), (8, 27), (-4, 27)], colour)
        brush.ellipse(-4, 8, 11, 9, colour)
        _cat_head(brush, 3, 31, colour)
    else:
        _legs(brush, (-14, -9, 8, 13), 14, 5, colour, pose)
        brush.limb([(-13, 18), (10, 18)], 12, colour)
        brush.limb([(-17, 20), (-22, 32), (-18, 42)], 5, colour)
        _cat_head(brush, 14, 27, colour)


def _cat_head(brush: Brush, x: float, y: float, colour: RGB) -> None:
    for side in (-1, 1):
        brush.polygon([(x + side * 10, y + 15), (x + side * 10, y + 2), (x + side * 2, y + 6)], colour)
    brush.ellipse(x, y, 11, 9, colour)
    for side in (-1, 1):
        brush.ellipse(x + side * 4.5, y + 1, 1.9, 2.6, (80, 200, 90), shade=True)
    brush.ellipse(x, y - 3, 1.6, 1.3, _PINK, shade=True)


def horse(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    mane = darker(colour, 0.45) if sum(colour) > 200 else (120, 116, 120)
    if sum(colour) > 700:
        mane = (176, 170, 164)
    brush.limb([(-28, 50), (-38, 42), (-39, 24)], 7, mane)
    _legs(brush, (-25, -18, 16, 23), 38, 8, colour, pose)
    brush.limb([(-20, 47), (18, 47)], 24, colour)
    if pose == "grazing":
        brush.limb([(21, 50), (34, 22)], 13, colour)
        brush.limb([(17, 56), (31, 32)], 6, mane)
        brush.limb([(35, 19), (40, 8)], 11, colour)
        _eye(brush, 35, 19, colour)
        return
    brush.limb([(20, 50), (31, 72)], 14, colour)
    brush.limb([(31, 75), (42, 67)], 12, colour)
    brush.polygon([(27, 78), (31, 88), (34, 78)], colour)
    brush.limb([(14, 58), (25, 78)], 7, mane)
    _eye(brush, 34, 75, colour)


def cow(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    """White with black patches, horns and a pink nose."""
    low = 22 if pose == "lying" else 0
    if not low:
        _legs(brush, (-25, -17, 15, 22), 24, 9, _WHITE, pose)
    brush.box(-31, 22 - low, 27, 52 - low, _WHITE)
    brush.limb([(-32, 48 - low), (-37, 26 - low + (8 if low else 0))], 4, _BLACK)
    brush.ellipse(-18, 42 - low, 9, 8, _BLACK, shade=True)
    brush.ellipse(4, 34 - low, 10, 8, _BLACK, shade=True)
    brush.ellipse(17, 47 - low, 7, 5, _BLACK, shade=True)
    x, y = (36, 18) if pose == "grazing" else (33, 51 - low)
    brush.limb([(24, 44 - low), (x - 2, y)], 15, _WHITE)
    for side in (-1, 1):
        brush.limb([(x + side * 7, y + 8), (x + side * 10, y + 15)], 4, (224, 200, 150))
    brush.ellipse(x, y, 11, 11, _BLACK)
    brush.ellipse(x + 3, y - 7, 9, 6, _PINK)
    _eye(brush, x + 2, y + 4, _BLACK)


def sheep(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    face = (60, 52, 52) if sum(colour) > 400 else (206, 196, 186)
    _legs(brush, (-15, -9, 8, 14), 14, 6, face, pose)
    for x, y, r in (
        (-16, 24, 10),
        (-8, 32, 10),
        (3, 33, 10),
        (12, 26, 10),
        (-4, 20, 12),
        (6, 19, 11),
        (-14, 18, 9),
    ):
        brush.ellipse(x, y, r, r, colour)
    x, y = (24, 12) if pose == "grazing" else (22, 34)
    brush.ellipse(x, y, 8, 9, face)
    brush.ellipse(x - 2, y + 8, 7, 5, colour)
    brush.limb([(x - 6, y + 2), (x - 11, y - 1)], 4, face)
    _eye(brush, x + 2, y + 1, face, 1.6)


def elephant(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    gray, dark = (138, 142, 154), (108, 112, 126)
    brush.limb([(-40, 56), (-48, 40)], 4, dark)
    for x, shade in ((-24, dark), (-32, gray), (10, dark), (20, gray)):
        brush.limb([(x, 34), (x, 8)], 15, shade)
    brush.ellipse(-7, 48, 38, 27, gray)
    brush.ellipse(29, 58, 19, 19, gray)
    brush.limb([(43, 54), (50, 36), (48, 16), (54, 12)], 10, gray)
    brush.limb([(40, 42), (50, 44)], 4, (250, 248, 236))
    brush.ellipse(19, 58, 13, 18, dark)
    _eye(brush, 37, 63, gray)


def giraffe(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    coat, spot = (246, 200, 84), (158, 96, 36)
    brush.limb([(-26, 56), (-30, 38)], 4, spot)
    _legs(brush, (-20, -14, 8, 14), 46, 7, coat, pose)
    brush.limb([(-16, 54), (9, 58)], 23, coat)
    brush.limb([(11, 62), (22, 114)], 12, coat)
    brush.limb([(21, 120), (34, 113)], 12, coat)
    brush.limb([(20, 124), (19, 132)], 3.5, spot)
    neck: list[Point] = [(12, 70), (17, 84), (18, 98), (22, 110)]
    for x, y in [(-18, 58), (-8, 51), (-5, 62), (5, 53), (11, 60), (-16, 48), *neck]:
        brush.ellipse(x, y, 3.8, 3.8, spot, shade=True)
    _eye(brush, 25, 121, coat)


def zebra(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    brush.limb([(-28, 44), (-35, 26)], 4, _BLACK)
    _legs(brush, (-22, -15, 14, 20), 30, 7.5, _WHITE, pose)
    brush.limb([(-18, 40), (16, 40)], 22, _WHITE)
    for x in (-24, -15, -6, 3, 12):
        brush.limb([(x, 49), (x - 1, 31)], 4, _BLACK, shade=True)
    for x in (-22, 20):
        brush.limb([(x - 4, 19), (x + 4, 19)], 4, _BLACK, shade=True)
        brush.limb([(x - 4, 10), (x + 4, 10)], 4, _BLACK, shade=True)
    low = pose == "grazing"
    tip, nose = ((30, 18), (36, 7)) if low else ((28, 60), (38, 53))
    brush.limb([(18, 44), tip], 13, _WHITE)
    brush.limb([tip, nose], 11, _WHITE)
    brush.limb([nose, (nose[0] + 1, nose[1] - 1)], 9, _BLACK)
    for share in (0.3, 0.65):
        across, up = 18 + (tip[0] - 18) * share, 44 + (tip[1] - 44) * share
        brush.limb([(across - 5, up + 2), (across + 5, up - 2)], 3.5, _BLACK, shade=True)
    brush.limb([(14, 54), tip if low else (23, 68)], 5, _BLACK)
    _eye(brush, tip[0] + 2, tip[1] + 2, _WHITE)


def bird(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    """Stands on thin legs, or flies with both wings up."""
    beak = (250, 160, 30)
    if pose == "flying":
        brush.polygon([(-21, 14), (-10, 20), (-12, 10)], colour)
        brush.ellipse(0, 15, 14, 8, colour)
        brush.ellipse(13, 19, 7.5, 7, colour)
        brush.polygon([(19, 21), (28, 18), (19, 16)], beak)
        shade = darker(colour, 0.8) if sum(colour) > 180 else lighter(colour, 0.25)
        brush.polygon([(-6, 17), (7, 17), (-4, 38), (-16, 36)], shade)
        _eye(brush, 15, 21, colour, 1.7)
        return
    for x in (-3, 4):
        brush.limb([(x, 12), (x, 2)], 3, beak)
    brush.polygon([(-24, 26), (-10, 24), (-10, 12)], colour)
    brush.ellipse(-2, 18, 15, 11, colour)
    brush.ellipse(10, 29, 9, 8.5, colour)
    brush.polygon([(17, 32), (27, 28), (17, 25)], beak)
    brush.ellipse(
        -5, 17, 8, 5, darker(colour, 0.75) if sum(colour) > 180 else lighter(colour, 0.25), shade=True
    )
    _eye(brush, 12, 31, colour, 1.8)


def duck(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    """Low on the water, tail up, flat orange bill."""
    brush.polygon([(-24, 22), (-8, 18), (-8, 4), (-18, 4)], colour)
    brush.ellipse(-1, 10, 20, 10, colour)
    brush.limb([(11, 14), (13, 28)], 10, colour)
    brush.ellipse(14, 31, 10, 9, colour)
    brush.limb([(22, 29), (28, 28)], 6, (250, 140, 20))
    brush.ellipse(-4, 12, 10, 5, darker(colour, 0.82), shade=True)
    brush.limb([(-18, 1), (20, 1)], 3, (200, 228, 246))
    _eye(brush, 16, 33, colour, 2)


def penguin(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    for x in (-6, 6):
        brush.ellipse(x, 3, 6, 3.5, (250, 150, 30))
    for side in (-1, 1):
        brush.limb([(side * 12, 34), (side * 16, 16)], 6, _BLACK)
    brush.ellipse(0, 23, 14, 21, _BLACK)
    brush.ellipse(0, 43, 10, 10, _BLACK)
    brush.ellipse(1, 20, 9.5, 16, _WHITE, shade=True)
    brush.ellipse(2, 41, 6.5, 6, _WHITE, shade=True)
    brush.polygon([(4, 44), (15, 41), (4, 38)], (250, 150, 30))
    brush.ellipse(3, 45, 1.8, 1.8, DARK, shade=True)


def rabbit(brush: Brush, colour: RGB, pose: str, look: int) -> None:
    """Sits with two long ears up."""
    brush.ellipse(-17, 9, 5.5, 5.5, lighter(colour, 0.7))
    brush.ellipse(-4, 12, 15, 12, colour)
    brush.limb([(6, 5), (12, 4)], 7, colour)
    for x in (6, 14):
        brush.limb([(x, 28), (x - 3, 44)], 6.5, colour)
        brush.limb([(x, 30), (x - 2.4, 41)], 2.6, _PINK, shade=True)
    brush.ellipse(10, 22, 10, 9, colour)
    _eye(brush, 13, 24, colour)
    brush.ellipse(19, 21, 1.8, 1.5, _PINK, shade=True)


ANIMALS = {
    shape.__name__: shape
    for shape in (
        dog,
        cat,
        horse,
        cow,
        sheep,
        elephant,
        giraffe,
        zebra,
        bird,
        duck,
        penguin,
        rabbit,
    )
}
