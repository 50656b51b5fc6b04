"""Whether a run's weights were trained here, and what is known of those that were not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Groups and fields of a config that say how weights were trained.
OF_TRAINING = ("objective", "optim", "schedule", "trainer", "validation", "init_from")


def is_trained_here(result: Mapping[str, Any]) -> bool:
    """Return whether easycap trained the weights: not those of imported runs and of pretrained captioners."""
    return not {"imported", "pretrained"} & result.keys()


def known_config(config: Mapping[str, Any], result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a config without settings of training, where other people trained the weights."""
    if is_trained_here(result):
        return config
    return {key: value for key, value in config.items() if key not in OF_TRAINING}


def imported(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what an import noted (system, model, files, not_known); empty for other runs."""
    found = result.get("imported")
    return found if isinstance(found, Mapping) else {}
