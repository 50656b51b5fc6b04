"""`data=scenes`: generated cartoon scenes, five references each, their graphs, a check of truth."""

from __future__ import annotations

import random
from dataclasses import replace
from enum import Enum

import PIL

from easycap.data.scenes import store, truth  # noqa: F401  truth registers its scorer
from easycap.data.scenes.chinese import CHINESE
from easycap.data.scenes.german import GERMAN
from easycap.data.scenes.graph import Scene
from easycap.data.scenes.tables import VERSION
from easycap.data.scenes.templates import Grammar
from easycap.errors import UserError
from easycap.registry import register
from easycap.types import Dataset, Example
from easycap.utils import paths
from easycap.utils.paths import expanded

SMALLEST, LARGEST = 16, 1024


class Language(Enum):
    """The language of the captions."""

    en = "en"
    zh = "zh"
    de = "de"


_LANGUAGES = {Language.zh: CHINESE, Language.de: GERMAN}


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
    language: Language,
) -> Dataset:
    """Return splits train, val, test and test_novel (as many as test) of size x size pixel scenes.

    Every image of `test_novel` shows a (colour, thing) pair of tables.NOVEL_PAIRS, no other split does.
    Captions are in `language`, those in zh and de by grammars of their own; tags are English.
    `workers` processes draw (0: one per core); `cache` is the folder for what was drawn (None: the user's
    cache folder). `UserError` for senseless counts and sizes and for a folder that cannot be written.
    """
    _check(
        size=size, train_images=train_images, val_images=val_images, test_images=test_images, workers=workers
    )
    counts = {"train": train_images, "val": val_images, "test": test_images, "test_novel": test_images}
    root = expanded(cache).absolute() if cache else paths.cache_dir() / "scenes"
    sizes = f"{size}px-{train_images}-{val_images}-{test_images}"
    name = f"scenes-v{VERSION}-{sizes}-seed{seed}-pillow{PIL.__version__}"
    store.make(root / name, counts=counts, size=size, seed=seed, workers=workers)
    splits = {split: store.load_split(root / name, split) for split in counts}
    if language is Language.en:
        return Dataset("scenes", splits, scorers=("truth",))
    grammar = _LANGUAGES[language]
    translated = {
        split: [_translated(example, grammar) for example in examples] for split, examples in splits.items()
    }
    return Dataset("scenes", translated, scorers=(f"truth_{language.value}",))


def _translated(example: Example, grammar: Grammar) -> Example:
    """A scene with references in another language, always the same ones."""
    rng = random.Random(f"{grammar.name}/{example.id}")
    return replace(example, references=grammar.references(Scene.from_dict(example.annotations), rng))


def _check(*, size: int, workers: int, **counts: int) -> None:
    if not SMALLEST <= size <= LARGEST:
        raise UserError(
            f"data.size={size} must be from {SMALLEST} to {LARGEST} pixels; 64 shows everything captions mention"
        )
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"data.{name}={count} must be at least 1, e.g. data.{name}=1000")
    if workers < 0:
        raise UserError(f"data.workers={workers} must be 0 (one per core) or more, e.g. data.workers=2")
