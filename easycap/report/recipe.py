"""What a run's config says in a few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from easycap.report.numbers import NOTHING


def choice(config: Mapping[str, Any], group: str) -> str:
    """Return the name chosen for a config group, with the timm or hub model it names."""
    value = config.get(group)
    if not isinstance(value, Mapping):
        return NOTHING if value is None else str(value)
    name, model = value.get("name"), value.get("model")
    if name is None:
        return NOTHING
    return f"{name} {model}" if model and str(model) != str(name) else str(name)


def image_tokens(config: Mapping[str, Any]) -> str:
    """Return the image-token mode with its count, as in "resampler × 10"."""
    name, tokens = choice(config, "image_tokens"), config.get("image_tokens")
    count = tokens.get("count") if isinstance(tokens, Mapping) else None
    return name if count is None else f"{name} × {count}"


def recipe(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (part, choice) of the parts that make a captioner, without those the config leaves out."""
    parts = [(group, choice(config, group)) for group in ("data", "encoder")]
    parts += [("image tokens", image_tokens(config))]
    parts += [(group, choice(config, group)) for group in ("tags", "draft", "decoder", "vocab", "objective")]
    return [(part, name) for part, name in parts if name not in (NOTHING, "none")]
