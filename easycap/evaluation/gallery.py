"""The images of a split that a run stores for its pages."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from easycap.metrics import Scores
from easycap.types import Example

_SHOWN_PER_KIND = 12


def gallery(
    examples: Sequence[Example], texts: Mapping[str, str], scores: Scores, *, rank_by: str
) -> dict[str, list[dict[str, Any]]]:
    """Return {"random", "best", "worst": rows}, what `RunFolder.write_samples` takes.

    `texts` {image id: caption}. The best and the worst are those by the images' score in
    `rank_by`; an image chosen twice has one row.
    """
    per_image = scores.per_image()
    rows: list[dict[str, Any]] = [
        {
            "id": example.id,
            "image": example.image,
            "caption": texts[example.id],
            "references": list(example.references),
            "scores": per_image.get(example.id, {}),
        }
        for example in examples
    ]
    ranked = sorted(rows, key=lambda row: row["scores"].get(rank_by, 0.0))
    return {
        "random": random.Random(0).sample(rows, min(_SHOWN_PER_KIND, len(rows))),
        "best": ranked[::-1][:_SHOWN_PER_KIND],
        "worst": ranked[:_SHOWN_PER_KIND],
    }
