"""`data=scenes`: generated cartoon scenes, five references each, their graphs, a check of truth."""

from __future__ import annotations

from pathlib import Path

import PIL

from easycap import paths
from easycap.data.scenes import store, truth  # noqa: F401  truth registers its scorer
from easycap.data.scenes.tables import VERSION
from easycap.registry import register
from easycap.types import Dataset

SMALLEST, LARGEST = 16, 1024


@register("data", "scenes")
def scenes(
    *,
    size: int,
    train_images: int,
    val_images: int,
    test_images: int,
    seed: int,
    workers: int,
    cache: str | None,
) -> Dataset:
    """Return splits train, val, test and test_novel (as many as test) of size x size pixel scenes.

    Every image of `test_novel` shows a (colour, thing) pair of tables.NOVEL_PAIRS, no other split does.
    `workers` processes draw (0: one per core); `cache` is the folder for what was drawn (None: the user's
    cache folder). `ValueError` for senseless counts and sizes and for a folder that cannot be written.
    """
    _check(
        size=size, train_images=train_images, val_images=val_images, test_images=test_images, workers=workers
    )
    counts = {"train": train_images, "val": val_images, "test": test_images, "test_novel": test_images}
    root = Path(cache).expanduser().absolute() if cache else paths.cache_dir() / "scenes"
    sizes = f"{size}px-{train_images}-{val_images}-{test_images}"
    name = f"scenes-v{VERSION}-{sizes}-seed{seed}-pillow{PIL.__version__}"
    store.make(root / name, counts=counts, size=size, seed=seed, workers=workers)
    splits = {split: store.load_split(root / name, split) for split in counts}
    return Dataset("scenes", splits, scorers=("truth",))


def _check(*, size: int, workers: int, **counts: int) -> None:
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(
            f"data.size={size} must be from {SMALLEST} to {LARGEST} pixels; 64 shows everything told"
        )
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"data.{name}={count} must be at least 1, e.g. data.{name}=1000")
    if workers < 0:
        raise ValueError(f"data.workers={workers} must be 0 (one per core) or more, e.g. data.workers=2")
