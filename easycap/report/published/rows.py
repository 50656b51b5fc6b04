"""Published scores as a file states them, each with where it was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from easycap.errors import UserError
from easycap.registry import describe_choices
from easycap.report.comparison.settings import flat
from easycap.utils.text import is_number

_REQUIRED = ("name", "scores", "split", "source", "sources", "checked")
_OPTIONAL = ("recipe", "near", "notes", "settings", "differs")


@dataclass(frozen=True)
class Row:
    """Published scores, ×100; `settings` are dotted keys of a config, as far as the paper states them.

    `recipe` is the config group experiment's option that stands for the row; `near` are options whose runs are set
    next to it too, though they differ from it. `differs` says in words what of the row no run here has. Unless
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
        """Return what is to be known of the row, as a text."""
        return "; ".join(part for part in (self.notes, *self.differs) if part)


@dataclass(frozen=True)
class Paper:
    """A paper's title and the rows of its tables; `differs` lists how each recipe deviates from the authors' code."""

    title: str
    rows: tuple[Row, ...]
    differs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_paper(path: Path) -> Paper:
    """Return what a published.yaml states; raises `UserError` naming the file, the row and what is wrong with it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable YAML ({str(error).splitlines()[0]})") from None
    rows = content.get("rows") if isinstance(content, Mapping) else None
    if not isinstance(rows, list) or not isinstance(content.get("paper"), str):
        raise UserError(f"{path} must have 'paper', a title, and 'rows', a list")
    differs = content.get("differs", {})
    if not isinstance(differs, Mapping) or not all(isinstance(texts, list) for texts in differs.values()):
        raise UserError(f"{path}: 'differs' must be {{recipe: list of texts}}")
    read = tuple(_row(path, number, row) for number, row in enumerate(rows, 1))
    return Paper(
        content["paper"], read, {str(name): tuple(map(str, texts)) for name, texts in differs.items()}
    )


def _row(path: Path, number: int, values: Any) -> Row:
    if not isinstance(values, Mapping):
        raise UserError(f"{path}, row {number}: must be a mapping with {', '.join(_REQUIRED)}")
    where = f"{path}, row {number} ({values.get('name', 'no name')})"
    for key in values:
        if key not in _REQUIRED + _OPTIONAL:
            raise UserError(
                f"{where}: {key!r} is not a key; {describe_choices(str(key), _REQUIRED + _OPTIONAL)}"
            )
    missing = [key for key in _REQUIRED if key not in values]
    if missing:
        raise UserError(f"{where}: {missing[0]!r} is missing")
    scores = values["scores"]
    if not isinstance(scores, Mapping) or not scores or not all(map(is_number, scores.values())):
        raise UserError(f"{where}: 'scores' must be {{metric: number x100}}")
    if values["checked"] and not values["sources"]:
        raise UserError(f"{where}: it cannot be checked with 'sources: 0'")
    for key in ("near", "differs"):
        if not isinstance(values.get(key, []), list):
            raise UserError(f"{where}: {key!r} must be a list of texts")
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
