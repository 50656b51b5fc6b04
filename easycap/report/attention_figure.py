"""Pictures of where a decoder looked, word by word."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_COLUMNS = 6
_GAP = 8
_INK, _QUIET, _FRAME = (28, 30, 34), (110, 115, 122), (235, 120, 20)
_UNSEEN = 0.55  # brightness of what was not looked at
# Heat, from an even look to the longest.
_HEAT = np.array([[150, 20, 110], [240, 60, 60], [255, 160, 30], [255, 245, 130]], np.float32)
_MOST_HEAT = 0.85  # how much of the photo the heat covers


def attention_picture(
    photo: Image.Image,
    window: tuple[float, float, float, float],
    words: Sequence[str],
    maps: np.ndarray,
    *,
    side: int = 160,
) -> Image.Image:
    """Return the photo, and for each of T words the square the model saw, lit where it looked.

    `window` is that square's left, top, right, bottom in the photo's pixels; maps (T,h,w) are shares of the attention
    per cell of a grid laid over it. Panels have `side` pixels. Heat goes from an even share to the largest of all
    words, at least twice the even one: chance is not blown up.
    """
    seen = photo.resize((side, side), Image.Resampling.LANCZOS, box=window)
    even = 1 / maps[0].size if len(maps) else 1.0
    top = max(2 * even, float(maps.max(initial=0)))
    panels = [("", _framed(photo, window, side))]
    panels += [
        (word, heated(seen, (one - even) / (top - even))) for word, one in zip(words, maps, strict=True)
    ]
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    font = ImageFont.load_default(max(11, side // 10))
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's wheels have FreeType
    line = int(font.size) + 6
    legend = _legend(even, top, columns * (side + _GAP) - _GAP, font)
    height = rows * (side + line + _GAP) + legend.height
    sheet = Image.new("RGB", (columns * (side + _GAP) + _GAP, height + 2 * _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (word, panel) in enumerate(panels):
        left = _GAP + index % columns * (side + _GAP)
        above = _GAP + index // columns * (side + line + _GAP)
        pen.text((left + side / 2, above + line / 2), _fitting(word, font, side), _INK, font, anchor="mm")
        sheet.paste(panel, (left, above + line))
    sheet.paste(legend, (_GAP, height + _GAP - legend.height))
    return sheet


def heated(image: Image.Image, heat: np.ndarray) -> Image.Image:
    """Return the image in dark grey, under colours where `heat` (h,w) is above 0, the brightest where it is 1."""
    smooth = Image.fromarray(heat.astype(np.float32)).resize(image.size, Image.Resampling.BICUBIC)
    level = np.asarray(smooth).clip(0, 1)
    stops = np.linspace(0, 1, len(_HEAT))
    colour = np.stack([np.interp(level, stops, channel) for channel in _HEAT.T], -1)
    cover = _MOST_HEAT * np.sqrt(level)[..., None]
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None] * _UNSEEN
    return Image.fromarray((grey * (1 - cover) + colour * cover).round().astype(np.uint8))


def _framed(photo: Image.Image, window: tuple[float, float, float, float], side: int) -> Image.Image:
    """The whole photo in a square, with a frame around what the model saw."""
    scale = side / max(photo.size)
    size = [max(1, round(edge * scale)) for edge in photo.size]
    left, above = ((side - edge) // 2 for edge in size)
    panel = Image.new("RGB", (side, side), "white")
    panel.paste(photo.resize((size[0], size[1]), Image.Resampling.LANCZOS), (left, above))
    corners = [round(edge * scale) for edge in window]
    box = (left + corners[0], above + corners[1], left + corners[2] - 1, above + corners[3] - 1)
    ImageDraw.Draw(panel).rectangle(box, outline=_FRAME, width=max(2, side // 80))
    return panel


def _fitting(word: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    while word and font.getlength(word) > width:
        word = word[:-2] + "…"
    return word


def _legend(even: float, top: float, width: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    """A bar of heat with the shares at its ends."""
    strip = Image.new("RGB", (width, round(font.size) + 6), "white")
    pen, middle = ImageDraw.Draw(strip), strip.height / 2
    left = f"a cell's share of the attention:  {even:.1%} (even)"
    start = round(font.getlength(left)) + 8
    bar = heated(
        Image.new("RGB", (width // 5, strip.height - 6), "grey"), np.linspace(0, 1, width // 5)[None]
    )
    pen.text((0, middle), left, _QUIET, font, anchor="lm")
    strip.paste(bar, (start, 3))
    pen.text((start + bar.width + 8, middle), f"{top:.1%}", _QUIET, font, anchor="lm")
    return strip
