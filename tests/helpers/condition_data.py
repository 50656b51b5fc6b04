"""What text conditions are given, for tests without a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from easycap.conditioning.conditions import ConditionData
from easycap.types import Example


def condition_data(splits: Mapping[str, Sequence[Example]], **changed: Any) -> ConditionData:
    """Return the data of `splits` with 3 captions per image and seed 1, unless `changed`."""
    settings: dict[str, Any] = {
        "captions_per_image": 3,
        "seed": 1,
        "tag_vocab": {"name": "captions", "size": 9, "min_count": 1},
        "workers": 0,
        "device": torch.device("cpu"),
    }
    return ConditionData(lambda: splits, **settings | changed)
