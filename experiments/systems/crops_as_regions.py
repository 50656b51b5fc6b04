"""Stand-ins for bottom-up features, as files that encoder=precomputed reads: ID.npy of each photo, regions x 192.

Regions are the boxes of its annotated objects and the 12 cells of a grid, each seen as 8 x 8 pixels: enough to try a
recipe's path where no detector's features can be had, too little to learn from.

Usage: python crops_as_regions.py INSTANCES.json PHOTOS FOLDER (COCO's format)
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, ROWS, COLUMNS = 8, 3, 4


def main(instances: Path, photos: Path, folder: Path) -> None:
    content = json.loads(instances.read_text(encoding="utf-8"))
    boxes = defaultdict(list)
    for row in content["annotations"]:
        left, top, width, height = row["bbox"]
        boxes[row["image_id"]].append((left, top, left + max(width, 1), top + max(height, 1)))
    folder.mkdir(parents=True, exist_ok=True)
    for entry in content["images"]:
        with Image.open(photos / entry["file_name"]) as photo:
            image = photo.convert("RGB")
        crops = [*boxes[entry["id"]], *cells(*image.size)]
        pixels = [np.asarray(image.resize((SIDE, SIDE), box=clipped(box, *image.size))) for box in crops]
        features = np.stack(pixels).reshape(len(crops), -1) / 127.5 - 1
        np.save(folder / f"{entry['id']}.npy", features.astype(np.float32))


def cells(width: int, height: int) -> list[tuple[float, float, float, float]]:
    wide, high = width / COLUMNS, height / ROWS
    return [(c * wide, r * high, (c + 1) * wide, (r + 1) * high) for r in range(ROWS) for c in range(COLUMNS)]


def clipped(box: tuple[float, float, float, float], width: int, height: int) -> tuple[float, ...]:
    left, top, right, bottom = box
    return max(left, 0), max(top, 0), min(right, width), min(bottom, height)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
