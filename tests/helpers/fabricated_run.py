"""A fabricated run's folder, as training leaves it behind."""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageDraw

CAPTIONS = (
    "a brown dog running on the green grass",
    "two black cats sitting on a wooden floor",
    "a red car parked beside a tall cactus",
    "a woman in a yellow dress waving at the beach",
)
CIDER = "CIDEr-D|refs:{refs}|df:{df}|n:4|sigma:6|tok:ptb|v:0.1.0"


def config() -> dict[str, Any]:
    return {
        "seed": 1,
        "device": "cpu",
        "data": {"name": "scenes", "train_images": 20000, "size": 64},
        "vocab": {"name": "word", "size": 15000},
        "encoder": {"name": "small", "width": 64},
        "image_tokens": {"name": "resampler", "count": 10},
        "decoder": {"name": "causal_lm", "num_layers": 4, "width": 256, "num_heads": 4},
        "objective": {"name": "xe", "label_smoothing": 0.1},
        "optim": {"name": "muon", "lr": 0.02, "schedule": {"name": "cosine", "warmup": 100}},
        "trainer": {"batch_size": 64, "epochs": 8, "max_steps": None},
        "decoding": {"name": "beam", "width": 5},
    }


def status(state: str = "completed", **changes: Any) -> dict[str, Any]:
    values = {
        "status": state,
        "error": None,
        "started": "2025-03-01T10:00:00+00:00",
        "pid": os.getpid(),
        "host": socket.gethostname(),
    }
    ended = None if state == "running" else "2025-03-01T10:03:20+00:00"
    return {**values, "ended": ended, "command": "easycap train data=scenes image_tokens.count=10", **changes}


def metric_lines(*, steps: int = 1600, every: int = 10, epochs: int = 8) -> list[dict[str, Any]]:
    lines = []
    for step in range(every, steps + 1, every):
        part, wave = step / steps, math.sin(step * 1.7) + math.sin(step * 0.37)
        lines.append(
            {
                "step": step,
                "epoch": epochs * part,
                "seconds": 180 * part,
                "train/loss": 1.6 + 4.4 * math.exp(-6 * part) + 0.05 * wave,
                "train/lr": 0.02 * min(1, part / 0.08) * (0.5 + 0.5 * math.cos(math.pi * part)),
                "train/grad_norm": math.exp(2.5 - 6 * part) + 0.4 + 0.15 * wave,
                "train/grad_norm/encoder": math.exp(1.5 - 6 * part) + 0.25 + 0.1 * wave,
                "train/grad_norm/decoder": math.exp(2.2 - 7 * part) + 0.3 + 0.1 * wave,
                "train/images_per_second": 1500 + 60 * wave,
            }
        )
    return lines + [validation_line(epoch, steps=steps, epochs=epochs) for epoch in range(1, epochs + 1)]


def validation_line(epoch: int, *, steps: int, epochs: int) -> dict[str, Any]:
    part = epoch / epochs
    return {
        "step": round(steps * part),
        "epoch": epoch,
        "seconds": 180 * part,
        "val/loss": 1.75 + 3.5 * math.exp(-5 * part),
        "val/loss_of_shuffled_images": 3.1 + 2.2 * math.exp(-5 * part),
        "val/CIDEr-D": 1.02 * (1 - math.exp(-4 * part)),
        "val/BLEU-4": 0.42 * (1 - math.exp(-5 * part)),
        "val/ROUGE-L": 0.3 + 0.32 * (1 - math.exp(-5 * part)),
        "val/truth": 0.85 * (1 - math.exp(-3 * part)),
        "val/distinct_captions": 0.8 * (1 - math.exp(-4 * part)),
        "val/most_frequent_caption": 0.7 * math.exp(-5 * part) + 0.01,
        "val/bad_endings": 0.2 * math.exp(-4 * part),
        "val/repeating_captions": 0.12 * math.exp(-5 * part),
        "val/words_per_caption": 9.4 - math.exp(-3 * part),
    }


def score(value: float, signature: str = "", spread: float = 0.018) -> dict[str, Any]:
    return {"value": value, "low": value - spread, "high": value + spread, "signature": signature}


def result() -> dict[str, Any]:
    full, four = CIDER.format(refs="all", df="test:1000"), CIDER.format(refs="2-5", df="train:20000")
    scores = {
        "CIDEr-D": score(1.0234, full),
        "BLEU-1": score(0.811, "BLEU|n:1|refs:all|tok:ptb|v:0.1.0"),
        "BLEU-4": score(0.452, "BLEU|n:4|refs:all|tok:ptb|v:0.1.0"),
        "ROUGE-L": score(0.643, "ROUGE-L|beta:1.2|refs:all|tok:ptb|v:0.1.0"),
        "METEOR": {"absent": "Java was not found"},
        "truth": score(0.823, "truth|scenes|v:1", 0.024),
        "claims_per_caption": {"value": 3.41, "low": 3.36, "high": 3.47, "signature": "truth|scenes|v:1"},
    }
    novel = {**scores, "CIDEr-D": score(0.871, full), "truth": score(0.694, "truth|scenes|v:1", 0.03)}
    return {
        "scores": {"test": scores, "test_novel": novel},
        "baselines": {
            "test": {
                "reference_caption": {
                    "CIDEr-D": score(1.012, four),
                    "BLEU-4": score(0.371, "BLEU|n:4|refs:2-5"),
                },
                "model_same_references": {
                    "CIDEr-D": score(0.9876, four),
                    "BLEU-4": score(0.409, "BLEU|n:4|refs:2-5"),
                },
                "most_frequent": {
                    "CIDEr-D": score(0.092, full, 0.004),
                    "BLEU-4": score(0.11, "BLEU|n:4|refs:all"),
                },
            },
            "val": {
                "reference_caption": {"CIDEr-D": score(1.03, four)},
                "most_frequent": {"CIDEr-D": score(0.1, four)},
            },
        },
        "commands": {
            "test": "easycap train data=scenes",
            "test_novel": "easycap evaluate RUN --split test_novel",
        },
        "diagnostics": {
            "test": {
                "distinct_captions": 0.612,
                "bad_endings": 0.004,
                "repeating_captions": 0.0,
                "words_per_caption": 9.31,
                "vocabulary_used": 214,
            },
            "test_novel": {"distinct_captions": 0.655, "bad_endings": 0.006, "repeating_captions": 0.0},
        },
        "cost": {
            "wall_seconds": 200.4,
            "train_seconds": 151.2,
            "images_per_second": 1512.3,
            "peak_memory_bytes": 1_340_000_000,
            "total_parameters": 4_812_345,
            "trainable_parameters": 4_812_345,
            "flops_per_caption": 312_000_000,
        },
        "environment": {
            "python": "3.11.9",
            "torch": "2.8.0",
            "cpu": "2 cores",
            "gpu": None,
            "git_commit": "0f3c2ab",
        },
        "config_hash": "9b1c44d2",
        "seed": 1,
        "warnings": ["31 % of validation images got the same caption at epoch 1."],
    }


def draw_picture(path: Path, number: int, side: int = 64) -> None:
    picture = Image.new("RGB", (side, side), (120, 180, 90 + number % 120))
    ImageDraw.Draw(picture).ellipse(
        (8, 8, side - 8 - number % 20, side - 8), fill=(200, 40 + number * 7 % 200, 60)
    )
    picture.save(path)


def row(number: int, *, caption: str | None = None, **scores: float) -> dict[str, Any]:
    text = CAPTIONS[number % len(CAPTIONS)] if caption is None else caption
    references = [f"{text} {ending}" for ending in ("in the sun", "today", "alone", "in a field", "far away")]
    image = f"samples/images/{number:04d}.png"
    return {
        "id": f"{number:04d}",
        "image": image,
        "caption": text,
        "references": references,
        "scores": scores,
    }


def gallery(first: int) -> dict[str, Any]:
    kinds = {"best": 1.0, "worst": 0.0, "random": 0.5}
    return {
        kind: [
            row(first + 10 * place + i, **{"CIDEr-D": 3 * level + 0.1 * i, "truth": float(i % 3 > 0)})
            for i in range(8)
        ]
        for place, (kind, level) in enumerate(kinds.items())
    }


def epoch_rows(epoch: int) -> list[dict[str, Any]]:
    words = (
        "a dog",
        "a dog on the grass",
        "a brown dog on the grass",
        "a brown dog running on the green grass",
    )
    return [row(900 + i, caption=words[min(3, epoch // (2 + i % 2))]) for i in range(6)]


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def make(
    folder: Path, *, lines: list[dict[str, Any]] | None = None, draw: Callable[..., None] = draw_picture
) -> Path:
    """Write a completed run of 8 epochs with two scored splits."""
    write(folder / "config.yaml", yaml.safe_dump(config(), sort_keys=False))
    write(folder / "status.json", status())
    lines = metric_lines() if lines is None else lines
    write(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    write(folder / "result.json", result())
    write(folder / "captions.test.json", [{"image_id": i, "caption": CAPTIONS[i % 3]} for i in range(1000)])
    pages = {f"epoch-{epoch:03d}": epoch_rows(epoch) for epoch in range(1, 9)}
    pages |= {"test": gallery(0), "test_novel": gallery(100)}
    for name, content in pages.items():
        write(folder / "samples" / f"{name}.json", content)
    (folder / "samples/images").mkdir()
    for number in [*range(30), *range(100, 130), *range(900, 906)]:
        draw(folder / f"samples/images/{number:04d}.png", number)
    return folder
