"""Places. A backdrop depends on few things, so each is painted once per process and kept."""

from __future__ import annotations

import random
from functools import lru_cache

from PIL import Image

from easycap.data.scenes.brush import RGB
from easycap.data.scenes.sky import HORIZON, Canvas, paint_fall, paint_sky


@lru_cache(maxsize=1024)
def backdrop(setting: str, weather: str | None, look: int, side: int) -> Image.Image:
    """Return the empty place as an RGB image of side x side pixels; copy it before drawing on it."""
    image = Image.new("RGB", (side, side))
    canvas = Canvas(image, weather, random.Random(f"{setting}/{weather}/{look}"))
    if weather:
        paint_sky(canvas, weather)
    _PLACES[setting](canvas)
    if weather:
        paint_fall(canvas, weather)
    return image


def _ground(c: Canvas, colour: RGB, patch: RGB, top: float = HORIZON) -> None:
    c.box(0, top, 256, 256, colour)
    for _ in range(9):
        x, y = c.vary(0, 256), c.vary(top + 14, 250)
        c.disc(x, y, c.vary(8, 20), 2.5, patch)


def _beach(c: Canvas) -> None:
    c.box(0, HORIZON - 24, 256, HORIZON + 30, (28, 132, 200))
    for y in (HORIZON - 10, HORIZON + 8):
        for i in range(4):
            x = i * 70 + c.vary(0, 40)
            c.line([(x, y), (x + 26, y)], 3, (130, 206, 240))
    c.box(0, HORIZON + 24, 256, HORIZON + 34, (236, 248, 252))
    _ground(c, (246, 222, 160), (232, 204, 138), HORIZON + 32)


def _street(c: Canvas) -> None:
    x = -c.vary(0, 20)
    walls: tuple[RGB, ...] = (
        (150, 110, 110),
        (120, 134, 150),
        (168, 148, 124),
        (110, 120, 118),
        (140, 120, 150),
    )
    i = int(c.vary(0, 5))
    while x < 256:
        wide, top = c.vary(36, 54), c.vary(46, 92)
        c.box(x, top, x + wide, HORIZON + 14, walls[i % 5])
        for wx in range(int(x) + 7, int(x + wide) - 10, 15):
            for wy in range(int(top) + 9, HORIZON - 4, 20):
                c.box(wx, wy, wx + 8, wy + 11, (255, 240, 170))
        x, i = x + wide + 1, i + 1
    c.box(0, HORIZON + 12, 256, HORIZON + 34, (196, 194, 190))
    c.box(0, HORIZON + 32, 256, 256, (112, 114, 122))
    for i in range(-1, 5):
        c.box(i * 62 + 10, 212, i * 62 + 42, 217, (244, 240, 214))


def _round_tree(c: Canvas, x: float, y: float, r: float, leaf: RGB) -> None:
    c.box(x - 4, y - 6, x + 4, y + 12, (112, 76, 46))
    c.disc(x, y - r, r, r * 1.1, leaf)


def _park(c: Canvas) -> None:
    for i in range(7):
        _round_tree(c, i * 42 + c.vary(-6, 6), HORIZON - 2, c.vary(17, 24), (70, 146, 74))
    _ground(c, (142, 204, 98), (122, 186, 82))
    c.shape([(104, HORIZON), (130, HORIZON), (226, 256), (40, 256)], (226, 212, 176))


def _farm(c: Canvas) -> None:
    x = c.vary(20, 160)
    _ground(c, (176, 200, 84), (156, 180, 70))
    c.box(x, HORIZON - 44, x + 66, HORIZON + 4, (190, 44, 40))
    c.shape([(x - 6, HORIZON - 42), (x + 33, HORIZON - 76), (x + 72, HORIZON - 42)], (112, 40, 38))
    c.box(x + 22, HORIZON - 26, x + 44, HORIZON + 4, (250, 246, 240))
    for fx in range(4, 256, 28):
        c.box(fx, HORIZON - 4, fx + 6, HORIZON + 22, (252, 250, 244))
    for fy in (HORIZON + 2, HORIZON + 12):
        c.box(0, fy, 256, fy + 4, (252, 250, 244))


def _desert(c: Canvas) -> None:
    c.disc(c.vary(40, 90), HORIZON + 34, 130, 60, (230, 160, 84))
    c.disc(c.vary(170, 220), HORIZON + 30, 110, 44, (238, 172, 96))
    _ground(c, (244, 184, 108), (228, 164, 88), HORIZON + 14)
    for x in (c.vary(14, 90), c.vary(160, 240)):
        green = (60, 130, 70)
        c.box(x - 6, HORIZON - 36, x + 6, HORIZON + 22, green)
        c.box(x - 20, HORIZON - 22, x - 12, HORIZON - 2, green)
        c.box(x - 20, HORIZON - 8, x, HORIZON, green)
        c.box(x + 12, HORIZON - 30, x + 20, HORIZON - 8, green)
        c.box(x, HORIZON - 14, x + 20, HORIZON - 6, green)


def _savanna(c: Canvas) -> None:
    _ground(c, (214, 190, 92), (190, 164, 70))
    for x in (c.vary(24, 100), c.vary(150, 232)):
        c.shape(
            [(x - 4, HORIZON + 4), (x + 4, HORIZON + 4), (x + 2, HORIZON - 40), (x - 2, HORIZON - 40)],
            (104, 76, 50),
        )
        c.disc(x, HORIZON - 44, 42, 12, (104, 130, 54))
    for _ in range(22):
        x, y = c.vary(0, 256), c.vary(HORIZON + 8, 250)
        c.shape([(x - 5, y), (x - 3, y - 12), (x, y - 2), (x + 4, y - 13), (x + 6, y)], (168, 140, 54))


def _mountains(c: Canvas) -> None:
    for x, top, wide in ((c.vary(30, 60), 44, 92), (c.vary(110, 150), 24, 104), (c.vary(200, 230), 50, 86)):
        c.shape([(x - wide, HORIZON + 6), (x, top), (x + wide, HORIZON + 6)], (112, 106, 132))
        cap = 0.3
        y = top + (HORIZON - top) * cap
        zigzag = [
            (x + wide * cap, y),
            (x + wide * cap * 0.4, y - 8),
            (x, y + 4),
            (x - wide * cap * 0.5, y - 6),
        ]
        c.shape([(x - wide * cap, y), (x, top), *zigzag], (250, 252, 255))
    _ground(c, (128, 178, 108), (108, 158, 90))


def _snow(c: Canvas) -> None:
    c.disc(60, HORIZON + 30, 120, 46, (222, 234, 246))
    c.disc(206, HORIZON + 30, 120, 40, (230, 240, 250))
    for x in (c.vary(10, 60), c.vary(90, 150), c.vary(190, 246)):
        for i, half in enumerate((20, 15, 10)):
            y = HORIZON + 4 - i * 14
            c.shape([(x - half, y), (x, y - 24), (x + half, y)], (58, 110, 96))
    _ground(c, (240, 246, 252), (214, 228, 242), HORIZON + 4)


def _lake(c: Canvas) -> None:
    c.disc(c.vary(20, 90), HORIZON + 6, 110, 40, (96, 156, 92))
    c.disc(c.vary(170, 240), HORIZON + 6, 100, 32, (116, 174, 102))
    c.box(0, HORIZON + 2, 256, 256, (74, 158, 214))
    for _ in range(22):
        x, y = c.vary(0, 240), c.vary(HORIZON + 10, 250)
        c.line([(x, y), (x + c.vary(12, 30), y)], 3, (142, 206, 240))


def _forest(c: Canvas) -> None:
    c.box(0, HORIZON - 12, 256, HORIZON + 20, (30, 74, 52))
    for shade, y, step in (((34, 88, 58), HORIZON + 4, 30), ((48, 110, 66), HORIZON + 16, 44)):
        x = -c.vary(0, 20)
        while x < 280:
            c.box(x - 5, y - 10, x + 5, y + 6, (94, 64, 42))
            tall = c.vary(84, 112)
            for i in range(3):
                half, base = 25 - 6 * i, y - 6 - i * tall * 0.25
                c.shape([(x - half, base), (x, base - tall * 0.46), (x + half, base)], shade)
            x += step + c.vary(-4, 4)
    _ground(c, (124, 132, 78), (104, 112, 62), HORIZON + 16)


def _room(c: Canvas, wall: RGB, floor: RGB, edge: float) -> None:
    c.box(0, 0, 256, edge, wall)
    c.box(0, edge, 256, 256, floor)
    c.box(0, edge - 6, 256, edge, (250, 246, 238))


def _living_room(c: Canvas) -> None:
    walls: tuple[RGB, ...] = ((240, 218, 180), (232, 206, 196), (226, 222, 180), (236, 212, 214))
    _room(c, walls[int(c.vary(0, 4))], (196, 148, 98), HORIZON + 8)
    for y in range(HORIZON + 26, 256, 18):
        c.line([(0, y), (256, y)], 2, (172, 124, 78))
    x = c.vary(24, 60)
    c.box(x, 26, x + 62, 96, (252, 252, 252))
    c.box(x + 6, 32, x + 56, 90, (150, 208, 246))
    c.box(x + 29, 32, x + 33, 90, (252, 252, 252))
    c.box(x + 6, 58, x + 56, 62, (252, 252, 252))
    x = c.vary(150, 190)
    c.box(x, 36, x + 52, 78, (120, 84, 50))
    c.box(x + 5, 41, x + 47, 73, (180, 214, 170))
    c.shape([(x + 5, 73), (x + 22, 50), (x + 47, 73)], (110, 150, 120))
    c.disc(128, 226, 112, 22, (178, 92, 92))
    c.disc(128, 226, 98, 18, (206, 132, 122))


def _kitchen(c: Canvas) -> None:
    _room(c, (214, 236, 240), (232, 232, 228), HORIZON + 8)
    for row, y in enumerate(range(HORIZON + 8, 256, 18)):
        for x in range((row % 2) * 24, 256, 48):
            c.box(x, y, x + 24, y + 18, (160, 176, 188))
    left = c.vary(0, 16)
    for i in range(3):
        c.box(left + i * 46, 12, left + i * 46 + 42, 54, (222, 178, 120))
        c.disc(left + i * 46 + 36, 34, 2.5, 2.5, (90, 70, 50))
    c.box(left, 92, left + 138, 100, (120, 112, 108))
    for i in range(3):
        c.box(left + i * 46, 100, left + i * 46 + 44, HORIZON + 8, (222, 178, 120))
        c.disc(left + i * 46 + 36, 114, 2.5, 2.5, (90, 70, 50))
    fx = c.vary(182, 200)
    c.box(fx, 34, fx + 52, HORIZON + 8, (246, 248, 250))
    c.box(fx, 74, fx + 52, 77, (150, 156, 164))
    c.box(fx + 6, 50, fx + 10, 68, (150, 156, 164))
    c.box(fx + 6, 84, fx + 10, 106, (150, 156, 164))


def _soccer_field(c: Canvas) -> None:
    c.box(0, HORIZON - 22, 256, HORIZON, (150, 156, 176))
    for x in range(4, 256, 9):
        for y in (HORIZON - 17, HORIZON - 9):
            c.disc(x + (y % 2) * 4, y, 3, 3, ((228, 120, 90), (250, 220, 120), (110, 150, 220))[x % 3])
    for i in range(8):
        c.box(0, HORIZON + i * 15, 256, HORIZON + i * 15 + 15, ((64, 172, 74), (90, 194, 92))[i % 2])
    white = (252, 252, 252)
    left = c.vary(70, 96)
    goal: list[tuple[float, float]] = [
        (left, HORIZON + 30),
        (left, HORIZON - 34),
        (left + 96, HORIZON - 34),
        (left + 96, HORIZON + 30),
    ]
    c.line(goal, 6, white)
    for i in range(1, 8):
        c.line([(left + i * 12, HORIZON - 34), (left + i * 12, HORIZON + 14)], 1.2, white)
    for i in range(1, 4):
        c.line([(left, HORIZON - 34 + i * 14), (left + 96, HORIZON - 34 + i * 14)], 1.2, white)
    c.line([(0, HORIZON + 30), (256, HORIZON + 30)], 4, white)
    c.line([(0, 234), (256, 234)], 4, white)


_PLACES = {
    "beach": _beach,
    "street": _street,
    "park": _park,
    "farm": _farm,
    "desert": _desert,
    "savanna": _savanna,
    "mountains": _mountains,
    "snow": _snow,
    "lake": _lake,
    "forest": _forest,
    "living room": _living_room,
    "kitchen": _kitchen,
    "soccer field": _soccer_field,
}
