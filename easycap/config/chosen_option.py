"""Which option of a group a run was configured with: several share a component, as gpt2_tiny is a causal_lm."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from easycap.config.options import option_values, options


def chosen_option(group: str, values: Mapping[str, Any]) -> str:
    """Return the option of `group` whose YAML is nearest to a run's stored values of that group.

    That is the one with the most equal settings among those of the stored component; the
    component's own name if no option has it.
    """
    component = values.get("name")
    candidates = {
        option: settings
        for option in options(group)
        if (settings := _values(group, option)).get("name") == component
    }
    if not candidates:
        return str(component)
    num_equal = {
        option: sum(key in values and values[key] == value for key, value in settings.items())
        for option, settings in candidates.items()
    }
    return max(candidates, key=lambda option: (num_equal[option], option == component))


@cache
def _values(group: str, name: str) -> dict[str, Any]:
    values = OmegaConf.to_container(option_values(group, name))
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
