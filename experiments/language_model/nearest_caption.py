"""Write the first caption of the most similar training image for every test image, as draft=retrieval finds it.

    python experiments/language_model/nearest_caption.py RUN OUT.json
    easycap score OUT.json RUN/references.test.json

RUN was trained with draft=retrieval.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from easycap.conditioning.retrieval import open_neighbours
from easycap.runs.find import checkpoint_of
from easycap.tasks.create import checkpoint_config
from easycap.tasks.datasets import read_data


def main(run: str, out: str) -> None:
    config = checkpoint_config(checkpoint_of(Path(run)), device="cpu")
    test = read_data(config, with_tags=False, stored=True).splits["test"]
    nearest = open_neighbours(Path(run) / "neighbours", torch.device("cpu"), 0, count=1)
    rows = [
        {"image_id": example.id, "caption": caption}
        for example, [caption] in zip(test, nearest(test), strict=True)
    ]
    Path(out).write_text(json.dumps(rows, indent=0), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
