"""A recipe's settings of an option, when the command line takes another option of that group."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from easycap.config.options import option_values
from easycap.config.schema import GROUPS

logger = logging.getLogger(__name__)


def leave_out_settings_of_replaced(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Remove from a composed config what its recipe sets of an option that `overrides` replace and the new one lacks.

    experiment=easycap/flickr8k sets vocab.min_count, which vocab=bert does not have. Settings that both
    options have stay as in the recipe, and what `overrides` set themselves is never removed. The log names what is.
    """
    values = {one.key_or_group: one.value() for one in overrides if not one.is_delete()}
    if values.get("experiment") is None:
        return
    for group in GROUPS:
        if (option := values.get(group)) is None or group not in config:
            continue
        known = {"name", *option_values(group, str(option))}
        known |= {key.split(".")[1] for key in values if key.startswith(f"{group}.")}
        if left_out := [str(key) for key in config[group] if key not in known]:
            _log_once(group, str(option), tuple(left_out))
        for key in left_out:
            del config[group][key]


@cache
def _log_once(group: str, option: str, keys: tuple[str, ...]) -> None:
    names = ", ".join(f"{group}.{key}" for key in keys)
    logger.warning("%s=%s does not have the recipe's %s", group, option, names)
