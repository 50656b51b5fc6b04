"""A run's config in a few words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from easycap.runs.provenance import imported
from easycap.runs.reading import data_name
from easycap.utils.hub import is_hub_name
from easycap.utils.text import NOTHING


def choice(config: Mapping[str, Any], group: str) -> str:
    """Return the name chosen for a config group, with what distinguishes its sizes: the timm or hub model it
    names, else layers×width.
    """
    value = config.get(group)
    if not isinstance(value, Mapping):
        return NOTHING if value is None else str(value)
    name = value.get("name") if group != "data" else data_name(config)
    if name is None:
        return NOTHING
    return " ".join([str(name), *_size(value, str(name))])


def _size(value: Mapping[str, Any], name: str) -> list[str]:
    for key in ("model", "pretrained"):
        if isinstance(value.get(key), str) and value[key] != name:
            return [value[key]]
    layers, width = value.get("num_layers"), value.get("width")
    return [f"{layers}×{width}"] if layers and width else []


def image_tokens(config: Mapping[str, Any]) -> str:
    """Return the image-token mode with its count, as in "resampler × 10"."""
    name, tokens = choice(config, "image_tokens"), config.get("image_tokens")
    count = tokens.get("count") if isinstance(tokens, Mapping) else None
    return name if count is None else f"{name} × {count}"


def pretrained_captioner(config: Mapping[str, Any]) -> str | None:
    """Return the model of `captioner=huggingface`: its name on the hub or that of its folder; None for other runs."""
    captioner = config.get("captioner")
    if not isinstance(captioner, Mapping) or not isinstance(model := captioner.get("model"), str):
        return None
    return model if is_hub_name(model) else PurePath(model).name or model


def tuning(config: Mapping[str, Any]) -> str:
    """Return what is trained of the model of `captioner=huggingface`, empty for one that is used as it is."""
    captioner, trainer = config["captioner"], config.get("trainer") or {}
    if captioner.get("tune") == "lora":
        return f"LoRA of rank {captioner['lora_rank']}"
    if captioner.get("tune") != "all":
        return ""
    frozen = trainer.get("unfreeze_encoder_at_epoch", 0) is None
    return f"all weights{' but those of the vision tower' if frozen else ''}"


def recipe(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (part, choice) of the parts that make a captioner or a tag model, without those the config leaves out."""
    parts = [(group, choice(config, group)) for group in ("data", "encoder")]
    if config.get("task") == "tags":
        return [*parts, ("tagger", choice(config, "tagger")), ("tags from", choice(config, "tag_vocab"))]
    if (model := pretrained_captioner(config)) is not None:
        parts[1:] = [("captioner", ", ".join(part for part in (model, tuning(config)) if part))]
    if isinstance(config.get("ensemble"), Mapping):
        parts.insert(0, ("ensemble", f"{config['ensemble'].get('size')} runs"))
    if isinstance(config.get("average"), Mapping):
        parts.insert(0, ("average of", f"{config['average'].get('size')} checkpoints"))
    parts += [("image tokens", image_tokens(config))]
    parts += [(group, choice(config, group)) for group in ("tags", "draft", "decoder", "vocab", "objective")]
    if isinstance(source := (config.get("captioner") or {}).get("word_vectors"), str):
        parts.append(("word vectors", source if is_hub_name(source) else PurePath(source).name))
    return [(part, name) for part, name in parts if name not in (NOTHING, "none")]


def origin(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (part, text) that says where an imported run's weights or captions come from; nothing for other runs."""
    about = imported(result)
    if not about:
        return []
    files = [f"{file['name']} (sha256 {file['sha256'][:12]})" for file in about.get("files", [])]
    if about.get("model") is None:
        return [("captions", ", ".join(files) or "a folder of texts")]
    return [("weights", f"{release_name(result)}, released: {', '.join(files)}")]


def release_name(result: Mapping[str, Any]) -> str:
    """Return whose weights were imported, and which of their models, as in "ruotianluo's updown"."""
    about = imported(result)
    model, system = about.get("model"), about.get("system")
    return str(system) if model in (None, system) else f"{system}'s {model}"
