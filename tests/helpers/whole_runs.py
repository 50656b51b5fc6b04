"""Runs at the smallest size, and what they leave behind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers.tiny_config import TINY
from omegaconf import OmegaConf

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.train import train


def settings(*overrides: str) -> dict[str, Any]:
    return check(compose([*TINY, *overrides])[0])


def run(path: Path, *overrides: str) -> Path:
    train(settings(*overrides), path, command="easycap train ...")
    return path


def run_or_resume(path: Path, *overrides: str, new: Sequence[str] = ()) -> Path:
    """A run in a new folder, also with `new`; where one is already, it is resumed with its own config, changed only by
    `overrides`.
    """
    if (path / "config.yaml").exists():
        stored = OmegaConf.load(path / "config.yaml")
        config = check(OmegaConf.merge(stored, OmegaConf.from_dotlist([*overrides, f"resume={path}"])))
    else:
        config = settings(*new, *overrides)
    train(config, path, command="")
    return path


def read(path: Path, name: str) -> Any:
    return json.loads((path / name).read_text(encoding="utf-8"))


def metrics(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


OVERLAYS = {
    "encoder": {
        "timm": ["encoder.model=test_vit", "encoder.pretrained=false"],
        "resnet101": ["encoder.model=resnet10t", "encoder.pretrained=false"],
        "resnet18": ["encoder.pretrained=false"],
        "vit_b16": ["encoder.model=test_vit", "encoder.pretrained=false"],
        "clip_vit_b32": ["encoder.model=test_vit", "encoder.pretrained=false"],
        "regions": [
            "encoder.pretrained=false",
            "encoder.min_regions=3",
            "encoder.max_regions=6",
            "trainer.unfreeze_encoder_at_epoch=null",
        ],
        "clip_rn50x4": ["encoder.model=resnet10t", "encoder.pretrained=false"],
    },
    "image_tokens": {"all": ["decoder.max_positions=96"]},
    "decoder": {"causal_lm": ["decoder.max_positions=64"]},
    "objective": {"xe_then_scst": ["trainer.patience=1"]},
}


# Decoders whose sizes have other names than TINY's.
RECURRENT = {
    "lstm": ["decoder.embed_dim=16", "decoder.hidden_dim=16"],
    "attention_lstm": ["decoder.embed_dim=16", "decoder.hidden_dim=16", "decoder.attention_dim=8"],
    "updown": ["decoder.embed_dim=16", "decoder.hidden_dim=16", "decoder.attention_dim=8"],
    "att2in2": ["decoder.embed_dim=16", "decoder.hidden_dim=16", "decoder.attention_dim=8"],
}
