"""Fabricated runs of a sweep: small folders with chosen settings, scores and captions, as training leaves them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from helpers.fabricated_run import config, draw_picture, metric_lines, status, write

IDS = [f"test-{number:03}" for number in range(12)]
REFERENCES = {image: [f"a dog number {image}", f"one dog <b>{image}</b>"] for image in IDS}
SIGNATURE = "CIDEr-D|n:4|df:test"


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The fabricated config with dotted settings put into it."""
    values = config()
    for key, value in settings.items():
        *groups, last = key.split(".")
        inner = values
        for group in groups:
            inner = inner[group]
        inner[last] = value
    return values


def make_run(
    folder: Path,
    settings: Mapping[str, Any],
    value: float,
    *,
    cost: Mapping[str, float] | None = None,
    captions: Mapping[str, str] | None = None,
    references: Mapping[str, list[str]] | None = REFERENCES,
    signature: str = SIGNATURE,
    slope: float = 0.02,
    pictures: int = 0,
    steps: int = 40,
    state: str = "completed",
) -> Path:
    """Write one run whose CIDEr-D on test is `value`: image by image it rises by `slope`, around that mean."""
    write(folder / "config.yaml", yaml.safe_dump(nested(settings), sort_keys=False))
    write(folder / "status.json", status(state))
    lines = metric_lines(steps=10 * steps, every=10, epochs=4)
    write(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    middle = (len(IDS) - 1) / 2
    per_image = {image: value + slope * (place - middle) for place, image in enumerate(IDS)}
    mean = sum(per_image.values()) / len(IDS)
    score = {"value": mean, "low": mean - 0.05, "high": mean + 0.05, "signature": signature}
    write(
        folder / "result.json",
        {
            "scores": {"test": {"CIDEr-D": score}},
            "cost": cost or {"wall_seconds": 60.0, "flops_per_caption": 1e6},
        },
    )
    write(folder / "per_image.test.json", {"CIDEr-D": per_image})
    captions = captions or {image: f"a dog in {folder.name}" for image in IDS}
    write(folder / "captions.test.json", [{"image_id": i, "caption": c} for i, c in captions.items()])
    if references is not None:
        write(folder / "references.test.json", dict(references))
    rows = [_row(folder, image, number, captions) for number, image in enumerate(IDS[:pictures])]
    write(folder / "samples" / "test.json", {"random": rows})
    return folder


def _row(folder: Path, image: str, number: int, captions: Mapping[str, str]) -> dict[str, Any]:
    path = folder / "samples" / "images" / f"{image}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_picture(path, number)
    return {"id": image, "image": f"samples/images/{image}.png", "caption": captions[image], "scores": {}}


def make_sweep(root: Path, *, seeds: tuple[int, ...] = (1,), pictures: int = 0) -> Path:
    """Write split and resampler at 1 and 5 image tokens: CIDEr-D 0.40, 0.60 (split), 0.50, 0.90 (resampler)."""
    for (name, count), value in VALUES.items():
        for seed in seeds:
            settings = {"image_tokens.name": name, "image_tokens.count": count, "seed": seed}
            cost = {
                "wall_seconds": 60.0 * count,
                "flops_per_caption": 1e6 * count + (name == "resampler") * 5e5,
            }
            folder = root / f"{name}-{count}-s{seed}"
            make_run(folder, settings, value + 0.01 * seed, cost=cost, pictures=pictures)
    return root


VALUES = {("split", 1): 0.40, ("split", 5): 0.60, ("resampler", 1): 0.50, ("resampler", 5): 0.90}
