"""Draw quality against minutes of training, from results.json, into the file FILE.png. Needs matplotlib.

usage: python experiments/flickr8k_systems/chart.py FILE.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

# Where a system's name stands beside its point, in points.
PLACES = {
    "Transformer": (-32, 44),
    "Meshed-Memory": (-28, 46),
    "easycap's model": (-66, -40),
    "Show and Tell": (-52, -38),
    "Show, Attend and Tell, soft": (10, 8),
    "Show, Attend and Tell, hard": (-70, -44),
    "Up-Down": (8, 6),
    "ClipCap, SmolLM2 with LoRA": (-150, 8),
    "ClipCap, SmolLM2 frozen": (8, -4),
}
SEED = 2


def main(file: str) -> None:
    results = json.loads(Path(__file__).with_name("results.json").read_text())
    figure, axes = plt.subplots(figsize=(8, 4.5), dpi=110)
    for name, place in PLACES.items():
        result = results[f"{name}, seed {SEED}"]
        score, minutes = result["scores"]["test, beam 5"]["CIDEr-D"], result["cost"]["train_seconds"] / 60
        value, low, high = (100 * score[key] for key in ("value", "low", "high"))
        axes.errorbar(minutes, value, [[value - low], [high - value]], fmt="o", capsize=3, color="tab:blue")
        leader = {"arrowstyle": "-", "linewidth": 0.6, "color": "0.6"}
        axes.annotate(
            name, (minutes, value), place, textcoords="offset points", fontsize=8.5, arrowprops=leader
        )
    axes.set_xlabel("minutes of training on one core, other work on the second")
    axes.set_ylabel("CIDEr-D, beam 5, with 95 % interval")
    axes.set_xlim(0, 30)
    axes.set_ylim(28, 62)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file)


main(sys.argv[1])
