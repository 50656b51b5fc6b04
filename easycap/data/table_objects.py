"""The objects in the images of tables, from COCO's instances_<split>.json: used as tags and to score captions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easycap.data.table_settings import NAME, TableSettings
from easycap.metrics import read_instances
from easycap.utils.ids import plain_number

_SCORED = ("val", "test")


@dataclass(frozen=True)
class TableObjects:
    """{id: annotations} of val and test (`scored`), and of all images whose tags are known (`tagged`)."""

    scored: Mapping[str, Any] = field(default_factory=dict)
    tagged: Mapping[str, Any] = field(default_factory=dict)

    def of(self, splits: Collection[str]) -> Mapping[str, Any]:
        """Return what captions of these splits are scored by, if it is known."""
        return self.scored if not frozenset(_SCORED).isdisjoint(splits) else {}


def table_objects(root: Path, settings: TableSettings, *, with_tags: bool) -> TableObjects:
    """Return the objects from the files below `root` that exist.

    Those of training images are read only `with_tags`: COCO's file is 450 MB, and training captions are not scored.
    """
    scored: dict[str, Any] = {}
    for path in dict.fromkeys(_path(root, settings, settings.objects, split) for split in _SCORED):
        scored |= _read(path)
    tags = _read(_path(root, settings, settings.train_objects, "train")) if with_tags else {}
    return TableObjects(scored, {**tags, **scored})


def _path(root: Path, settings: TableSettings, pattern: str | None, split: str) -> Path | None:
    if pattern is None or (NAME in pattern and vars(settings)[split] is None):
        return None
    return root / settings.of_split(pattern, split)


def _read(path: Path | None) -> dict[str, Any]:
    found = read_instances(path) if path is not None and path.is_file() else {}
    return {plain_number(image_id) or image_id: note for image_id, note in found.items()}
