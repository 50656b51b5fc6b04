"""Skies and weather, and the canvas that backdrops are painted on."""

from __future__ import annotations

import random

from PIL import Image, ImageDraw

from easycap.data.scenes.brush import RGB

# The sky from top to horizon, and what the light does to the ground: its weight and colour.
_SKY: dict[str, tuple[RGB, RGB]] = {
    "sunny": ((84, 176, 250), (196, 232, 255)),
    "cloudy": ((176, 190, 204), (214, 222, 230)),
    "rainy": ((94, 106, 124), (150, 160, 174)),
    "snowing": ((168, 180, 204), (226, 232, 242)),
    "night": ((10, 14, 52), (48, 52, 110)),
    "sunset": ((250, 126, 70), (255, 206, 120)),
    "rainbow": ((130, 196, 250), (214, 238, 255)),
}
_LIGHT: dict[str, tuple[float, RGB]] = {
    "cloudy": (0.12, (150, 156, 166)),
    "rainy": (0.26, (96, 106, 124)),
    "snowing": (0.2, (220, 226, 240)),
    "night": (0.42, (24, 28, 76)),
    "sunset": (0.2, (250, 150, 80)),
}
_RAINBOW: tuple[RGB, ...] = (
    (228, 60, 60),
    (248, 160, 50),
    (252, 232, 90),
    (80, 184, 96),
    (70, 120, 226),
    (140, 80, 190),
)
HORIZON = 140


class Canvas:
    """A picture addressed in 1/256 of its side, y down; the weather's light tints colours."""

    def __init__(self, image: Image.Image, weather: str | None, rng: random.Random) -> None:
        self.draw, self.rng = ImageDraw.Draw(image), rng
        self.scale, self._light = image.width / 256, _LIGHT.get(weather or "", (0.0, (0, 0, 0)))

    def tint(self, colour: RGB) -> RGB:
        share, light = self._light
        return tuple(round(c + (w - c) * share) for c, w in zip(colour, light, strict=True))  # type: ignore[return-value]

    def box(
        self, left: float, top: float, right: float, bottom: float, colour: RGB, *, lit: bool = True
    ) -> None:
        s = self.scale
        colour = self.tint(colour) if lit else colour
        x, y = left * s, top * s
        self.draw.rectangle((x, y, max(x, right * s - 1), max(y, bottom * s - 1)), colour)

    def disc(self, x: float, y: float, rx: float, ry: float, colour: RGB, *, lit: bool = True) -> None:
        s = self.scale
        colour = self.tint(colour) if lit else colour
        self.draw.ellipse(((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s), colour)

    def shape(self, points: list[tuple[float, float]], colour: RGB, *, lit: bool = True) -> None:
        self.draw.polygon(
            [(x * self.scale, y * self.scale) for x, y in points], self.tint(colour) if lit else colour
        )

    def line(self, points: list[tuple[float, float]], width: float, colour: RGB, *, lit: bool = True) -> None:
        colour = self.tint(colour) if lit else colour
        self.draw.line(
            [(x * self.scale, y * self.scale) for x, y in points], colour, max(1, round(width * self.scale))
        )

    def vary(self, low: float, high: float) -> float:
        return low + self.rng.random() * (high - low)


def paint_sky(c: Canvas, weather: str) -> None:
    """Paint from the top to the horizon, with sun, clouds, moon or rainbow."""
    top, low = _SKY[weather]
    steps = 20
    for i in range(steps):
        share = i / (steps - 1)
        colour = tuple(round(a + (b - a) * share) for a, b in zip(top, low, strict=True))
        y = HORIZON * i / steps
        c.box(0, y, 256, y + HORIZON / steps + 2, colour, lit=False)  # type: ignore[arg-type]
    x = c.vary(30, 226)
    if weather == "sunny":
        c.disc(x, 34, 27, 27, (255, 244, 170), lit=False)
        c.disc(x, 34, 21, 21, (255, 220, 40), lit=False)
    elif weather == "cloudy":
        for i in range(4):
            _cloud(c, 24 + 66 * i + c.vary(-10, 10), c.vary(22, 62), (248, 250, 252))
    elif weather == "rainy":
        for i in range(5):
            _cloud(c, 10 + 58 * i + c.vary(-8, 8), c.vary(12, 26), (70, 78, 94))
    elif weather == "night":
        for _ in range(26):
            c.disc(c.vary(0, 256), c.vary(0, 120), 2, 2, (255, 255, 230), lit=False)
        c.disc(x, 34, 20, 20, (250, 246, 214), lit=False)
        c.disc(x + 9, 29, 16, 16, (14, 18, 58), lit=False)
    elif weather == "sunset":
        c.disc(x, HORIZON - 12, 44, 44, (255, 196, 90), lit=False)
        c.disc(x, HORIZON - 12, 34, 34, (255, 96, 50), lit=False)
    elif weather == "rainbow":
        for i, colour in enumerate(_RAINBOW):
            c.disc(128, HORIZON, 122 - 7 * i, 116 - 7 * i, colour, lit=False)
        c.disc(128, HORIZON, 80, 74, (206, 234, 255), lit=False)


def _cloud(c: Canvas, x: float, y: float, colour: RGB) -> None:
    for dx, dy, r in ((-18, 3, 12), (0, -3, 17), (18, 3, 13)):
        c.disc(x + dx, y + dy, r, r * 0.8, colour, lit=False)


def paint_fall(c: Canvas, weather: str) -> None:
    """Paint rain or snow over everything."""
    if weather == "rainy":
        _rain(c)
    elif weather == "snowing":
        _flakes(c)


def _rain(c: Canvas) -> None:
    for i in range(64):
        x, y = (i % 8) * 34 + c.vary(-14, 14), (i // 8) * 32 + c.vary(-14, 14)
        c.line([(x, y), (x - 6, y + 18)], 2.2, (206, 222, 244), lit=False)


def _flakes(c: Canvas) -> None:
    for i in range(64):
        x, y = (i % 8) * 34 + c.vary(-14, 14), (i // 8) * 32 + c.vary(-14, 14)
        c.disc(x, y, 3.4, 3.4, (255, 255, 255), lit=False)
