"""A sprite's brush: collects shapes and draws them as one outlined silhouette, which shows on any ground.

Lengths are in 1/256 of the image side, the origin is the sprite's bottom centre, x goes right and y goes UP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Point = tuple[float, float]

DARK: RGB = (30, 28, 38)
LIGHT: RGB = (238, 238, 238)
_OUTLINE = 3.2


class Sprite(NamedTuple):
    """An RGBA picture and the pixel in it that is the thing's bottom centre."""

    image: Image.Image
    x: int
    y: int


class Brush:
    """Collects shapes and draws them; `shade` details lie inside the silhouette and get no outline."""

    def __init__(self, *, outline: RGB = DARK) -> None:
        self._outline = outline
        self._shapes: list[Callable[[ImageDraw.ImageDraw, _Frame, float, RGB | None], None]] = []
        self._points: list[Point] = []

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: RGB, *, shade: bool = False) -> None:
        """Centre and radii."""

        def paint(draw: ImageDraw.ImageDraw, frame: _Frame, grow: float, colour: RGB | None) -> None:
            if not (shade and colour):
                draw.ellipse(
                    frame.box(x - rx - grow, y - ry - grow, x + rx + grow, y + ry + grow), colour or fill
                )

        self._add(paint, (x - rx, y - ry), (x + rx, y + ry))

    def polygon(self, points: Sequence[Point], fill: RGB, *, shade: bool = False) -> None:
        """Corners in order."""

        def paint(draw: ImageDraw.ImageDraw, frame: _Frame, grow: float, colour: RGB | None) -> None:
            if shade and colour:
                return
            corners = [frame.at(*p) for p in points]
            draw.polygon(corners, colour or fill)
            if grow:
                _stroke(draw, frame, [*points, points[0]], 2 * grow, colour or fill)

        self._add(paint, *points)

    def box(
        self, left: float, bottom: float, right: float, top: float, fill: RGB, *, shade: bool = False
    ) -> None:
        """An upright rectangle."""
        self.polygon([(left, bottom), (right, bottom), (right, top), (left, top)], fill, shade=shade)

    def limb(self, points: Sequence[Point], width: float, fill: RGB, *, shade: bool = False) -> None:
        """A thick line with round ends and joints."""

        def paint(draw: ImageDraw.ImageDraw, frame: _Frame, grow: float, colour: RGB | None) -> None:
            if not (shade and colour):
                _stroke(draw, frame, points, width + 2 * grow, colour or fill)

        half = width / 2
        self._add(
            paint, *((x - half, y - half) for x, y in points), *((x + half, y + half) for x, y in points)
        )

    def render(self, scale: float, *, flip: bool) -> Sprite:
        """Draw everything at `scale` pixels per unit."""
        xs, ys = [p[0] for p in self._points], [p[1] for p in self._points]
        grow = max(_OUTLINE, 0.9 / scale)
        frame = _Frame(min(xs) - grow - 2, max(ys) + grow + 2, scale)
        size = frame.at(max(xs) + grow + 2, min(ys) - grow - 2)
        image = Image.new("RGBA", (round(size[0]) + 1, round(size[1]) + 1))
        draw = ImageDraw.Draw(image)
        for paint in self._shapes:
            paint(draw, frame, grow, self._outline)
        for paint in self._shapes:
            paint(draw, frame, 0.0, None)
        x, y = (round(v) for v in frame.at(0, 0))
        if flip:
            image, x = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), image.width - 1 - x
        return Sprite(image, x, y)

    def _add(self, paint: Callable[..., None], *points: Point) -> None:
        self._shapes.append(paint)
        self._points.extend(points)


class _Frame(NamedTuple):
    """Units to pixels: `left` and `top` are the unit coordinates of pixel (0, 0)."""

    left: float
    top: float
    scale: float

    def at(self, x: float, y: float) -> Point:
        return (x - self.left) * self.scale, (self.top - y) * self.scale

    def box(self, left: float, bottom: float, right: float, top: float) -> tuple[float, ...]:
        return *self.at(left, top), *self.at(right, bottom)


def _stroke(
    draw: ImageDraw.ImageDraw, frame: _Frame, points: Sequence[Point], width: float, fill: RGB
) -> None:
    corners, half = [frame.at(*p) for p in points], width * frame.scale / 2
    draw.line(corners, fill, max(round(2 * half), 1))
    if half > 0.8:
        for x, y in corners:
            draw.ellipse((x - half, y - half, x + half, y + half), fill)


def darker(colour: RGB, share: float = 0.75) -> RGB:
    """Return the colour scaled towards black."""
    return tuple(round(c * share) for c in colour)  # type: ignore[return-value]


def lighter(colour: RGB, share: float = 0.4) -> RGB:
    """Return the colour moved that share of the way to white."""
    return tuple(round(c + (255 - c) * share) for c in colour)  # type: ignore[return-value]
