"""Scene -> picture: a kept backdrop, then kept sprites, at twice the size, halved at the end."""

from __future__ import annotations

from functools import lru_cache

from PIL import Image, ImageDraw

from easycap.data.scenes.animals import ANIMALS
from easycap.data.scenes.backdrops import backdrop
from easycap.data.scenes.brush import DARK, LIGHT, Brush, Sprite
from easycap.data.scenes.graph import Group, Scene
from easycap.data.scenes.layout import hand
from easycap.data.scenes.objects import OBJECTS
from easycap.data.scenes.people import draw_person
from easycap.data.scenes.tables import COLOURS, PEOPLE
from easycap.errors import UserError

SUPERSAMPLING = 2
_SHAPES = ANIMALS | OBJECTS
_BEHIND_FIRST = ("in front of", "on", "under", "riding")


def draw(scene: Scene, size: int) -> Image.Image:
    """Return the scene as an RGB image of size x size pixels; `UserError` if size is below 16."""
    if size < 16:
        raise UserError(f"size={size} is too small to draw a scene: use 16 or more (64 shows everything)")
    side = size * SUPERSAMPLING
    image = backdrop(scene.setting, scene.weather, scene.backdrop, side).copy()
    order = list(range(len(scene.groups)))
    if scene.relation in _BEHIND_FIRST:
        order[:2] = 1, 0
    for index in order:
        _group(image, scene, index)
    return image.reduce(SUPERSAMPLING)


def _group(image: Image.Image, scene: Scene, index: int) -> None:
    group, scale = scene.groups[index], image.width / 256
    pose = _pose(scene, index)
    if index == 1 and scene.relation in ("holding", "flying") and group.kind != "umbrella":
        _string(image, scene.groups[0], group)
    for spot in group.spots:
        sprite = _sprite(group.kind, group.colour, pose, spot.look, spot.flip, scale * group.scale)
        image.paste(
            sprite.image, (round(spot.x * scale) - sprite.x, round(spot.y * scale) - sprite.y), sprite.image
        )


def _pose(scene: Scene, index: int) -> str:
    group = scene.groups[index]
    if group.kind in PEOPLE and index == 0:
        poses = {"on": "seat", "riding": "ride", "holding": "hold", "flying": "hold"}
        return poses.get(scene.relation or "", group.action or "standing")
    if group.kind == "umbrella" and scene.relation == "holding":
        return "held"
    return group.action or ""


def _string(image: Image.Image, person: Group, held: Group) -> None:
    scale, end = image.width / 256, held.spots[0]
    start = hand(person.kind, person.spots[0])
    points = [(start[0] * scale, start[1] * scale), (end.x * scale, end.y * scale)]
    ImageDraw.Draw(image).line(points, (250, 250, 250), max(1, round(2.2 * scale)))


@lru_cache(maxsize=4096)
def _sprite(kind: str, colour: str | None, pose: str, look: int, flip: int, scale: float) -> Sprite:
    """Looks differ a little in size; black things get a light outline, all others a dark one."""
    fill = COLOURS[colour] if colour else (0, 0, 0)
    scale *= (0.95, 1.0, 1.05)[look % 3]
    brush = Brush(outline=LIGHT if colour == "black" and kind not in PEOPLE else DARK)
    if kind in PEOPLE:
        draw_person(brush, kind, fill, pose, look)
    else:
        _SHAPES[kind](brush, fill, pose, look)
    return brush.render(scale, flip=bool(flip))
