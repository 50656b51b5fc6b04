"""The captioned images that a run keeps for its pages, read into plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easycap.utils.text import metric_order


@dataclass(frozen=True)
class Sample:
    """One captioned image; 1.0 in `scores` is CIDEr 100.

    `image`, and `attention`, a picture of where the decoder looked, are files in the run's folder, or None.
    `conditioning` has the text of each condition, `rounds` the captions of the rounds of refinement before the last.
    """

    id: str
    image: Path | None
    caption: str
    references: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    attention: Path | None = None
    conditioning: Mapping[str, str] = field(default_factory=dict)
    rounds: tuple[str, ...] = ()


def samples_of(folder: Path, rows: Any) -> tuple[Sample, ...]:
    """Return the rows of a file of samples that can be read; `folder` is the run's."""
    rows = rows if isinstance(rows, list) else []
    return tuple(_sample(folder, row) for row in rows if isinstance(row, Mapping) and "caption" in row)


def _sample(folder: Path, row: Mapping[str, Any]) -> Sample:
    found = row.get("scores") or {}
    scores = {
        name: float(found[name]) for name in metric_order(found) if isinstance(found[name], (int, float))
    }
    references = tuple(str(reference) for reference in row.get("references") or ())
    image, attention = (_file_inside(folder, row.get(key)) for key in ("image", "attention"))
    given = row.get("conditioning", row.get("beside"))  # "beside" in runs of earlier versions
    conditioning = {str(k): str(v) for k, v in given.items()} if isinstance(given, Mapping) else {}
    rounds = tuple(str(caption) for caption in row.get("rounds") or ())
    return Sample(
        str(row.get("id", "")),
        image,
        str(row["caption"]),
        references,
        scores,
        attention,
        conditioning,
        rounds,
    )


def _file_inside(folder: Path, name: Any) -> Path | None:
    """The file of a run by its name, None if there is none; a run may come from someone else: its rows must not pull
    other files of this machine into a page.
    """
    path = folder / str(name or "")
    return path if path.is_file() and path.resolve().is_relative_to(folder.resolve()) else None
