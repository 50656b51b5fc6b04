"""Draws the pictures of the tutorial: `python docs/draw_pictures.py [FOLDER]`."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

from easycap.data.scenes.draw import draw
from easycap.data.scenes.graph import Scene
from easycap.data.scenes.store import make_record

SIDE, GAP, PATCHES = 256, 16, 4


def main(folder: Path) -> Path:
    """Write scene.png: a scene, its 64 x 64 pixels, and the patches that the encoder describes."""
    scene = Scene.from_dict(make_record(0, "train", 2)["graph"])
    pixels = draw(scene, 64).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    panels = [draw(scene, SIDE), pixels, with_patches(pixels)]
    picture = Image.new("RGB", (len(panels) * (SIDE + GAP) - GAP, SIDE), "white")
    for number, panel in enumerate(panels):
        picture.paste(panel, (number * (SIDE + GAP), 0))
    path = folder / "scene.png"
    picture.save(path, optimize=True)
    return path


def with_patches(image: Image.Image) -> Image.Image:
    """Return a copy with the borders of the patches drawn over it."""
    image = image.copy()
    pen = ImageDraw.Draw(image)
    for line in range(PATCHES + 1):
        at = min(line * SIDE // PATCHES, SIDE - 2)
        pen.line([(at, 0), (at, SIDE)], "red", 2)
        pen.line([(0, at), (SIDE, at)], "red", 2)
    return image


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
