"""Published scores as a file states them, each with where it was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from easycap.registry import describe_choices
from easycap.report.comparison.settings import flat
from easycap.report.numbers import is_number

_REQUIRED = ("name", "scores", "split", "source", "sources", "checked")
_OPTIONAL = ("recipe", "near", "notes", "settings", "differs")


@dataclass(frozen=True)
class Row:
    """Published scores, ×100; `settings` are dotted keys of a config, as far as the paper states them.

    `recipe` is the config group experiment's option that stands for the row; `near` are options whose runs are set
    beside it too, though they differ from it. `differs` says in words what of the row no run here has. Unless
    `checked` the numbers were read nowhere and are not the paper's.
    """

    name: str
    scores: Mapping[str, float]
    split: str
    source: str
    sources: int
    checked: bool
    recipe: str | None = None
    near: tuple[str, ...] = ()
    notes: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    differs: tuple[str, ...] = ()

    @property
    def remarks(self) -> str:
        return "; ".join(part for part in (self.notes, *self.differs) if part)


@dataclass(frozen=True)
class Paper:
    """A paper's title and the rows of its tables."""

    title: str
    rows: tuple[Row, ...]


def read_paper(path: Path) -> Paper:
    """Return what a published.yaml states; raises `ValueError` naming the file, the row and what is wrong with it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable YAML ({str(error).splitlines()[0]})") from None
    rows = content.get("rows") if isinstance(content, Mapping) else None
    if not isinstance(rows, list) or not isinstance(content.get("paper"), str):
        raise ValueError(f"{path} must have 'paper', a title, and 'rows', a list")
    return Paper(content["paper"], tuple(_row(path, number, row) for number, row in enumerate(rows, 1)))


def _row(path: Path, number: int, values: Any) -> Row:
    if not isinstance(values, Mapping):
        raise ValueError(f"{path}, row {number}: must be a mapping with {', '.join(_REQUIRED)}")
    where = f"{path}, row {number} ({values.get('name', 'no name')})"
    for key in values:
        if key not in _REQUIRED + _OPTIONAL:
            raise ValueError(
                f"{where}: {key!r} is no key; {describe_choices(str(key), _REQUIRED + _OPTIONAL)}"
            )
    missing = [key for key in _REQUIRED if key not in values]
    if missing:
        raise ValueError(f"{where}: {missing[0]!r} is missing")
    scores = values["scores"]
    if not isinstance(scores, Mapping) or not scores or not all(map(is_number, scores.values())):
        raise ValueError(f"{where}: 'scores' must be {{metric: number x100}}")
    if values["checked"] and not values["sources"]:
        raise ValueError(f"{where}: it cannot be checked with 'sources: 0'")
    for key in ("near", "differs"):
        if not isinstance(values.get(key, []), list):
            raise ValueError(f"{where}: {key!r} must be a list of texts")
    texts = {key: str(values[key]) for key in ("name", "split", "source")}
    return Row(
        **texts,
        scores=dict(scores),
        sources=int(values["sources"]),
        checked=bool(values["checked"]),
        recipe=values.get("recipe"),
        near=tuple(map(str, values.get("near", ()))),
        notes=str(values.get("notes", "")),
        settings=flat(values.get("settings", {})),
        differs=tuple(map(str, values.get("differs", ()))),
    )
