"""A folder with every kind of image file that a data set may hold by mistake, and those that only look odd."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

# file name -> what is reported about it
BAD = {
    "empty.jpg": "cannot be read as an image",
    "truncated.jpg": "truncated",
    "text.jpg": "cannot be read as an image",
    "bomb.png": "exceeds limit",
    "missing.jpg": "unknown image",
    "lonely.png": "has no caption",
}
FINE = (
    "png_named.jpg",
    "cmyk.jpg",
    "grey.png",
    "palette.png",
    "deep.png",
    "alpha.png",
    "turned.jpg",
    "pixel.png",
    "line.png",
)


def make_bad_files(folder: Path, *, good: int = 24) -> Path:
    """Fill `folder` with good photos, odd ones and bad ones; return the CSV file beside it with their captions."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    photo = Image.fromarray(noise)
    for number in range(good):
        Image.fromarray(np.roll(noise, number, axis=1)).save(folder / f"good{number:02d}.jpg")
    _odd(folder, photo)
    (folder / "empty.jpg").touch()
    photo.save(folder / "truncated.jpg", quality=95)
    whole = (folder / "truncated.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "text.jpg").write_text("404: not found")
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    photo.save(folder / "lonely.png")
    names = [f"good{number:02d}.jpg" for number in range(good)] + [*FINE, *BAD]
    rows = [(name, f"a picture called {Path(name).stem}") for name in names if name != "lonely.png"]
    rows += [("good00.jpg", "two\nlines"), ("good01.jpg", "a\u2028separator"), ("good02.jpg", "  ")]
    table = folder.with_suffix(".csv")
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    return table


def _odd(folder: Path, photo: Image.Image) -> None:
    photo.save(folder / "png_named.jpg", format="PNG")
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    photo.convert("L").save(folder / "grey.png")
    photo.convert("P").save(folder / "palette.png")
    Image.fromarray(np.full((8, 8), 0x8000, dtype=np.uint16)).save(folder / "deep.png")
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(folder / "alpha.png")
    exif = photo.getexif()
    exif[0x0112] = 6  # turn a quarter to the right
    photo.save(folder / "turned.jpg", exif=exif)
    Image.new("RGB", (1, 1), "red").save(folder / "pixel.png")
    Image.new("RGB", (20_000, 1), "blue").save(folder / "line.png")
