"""Write what a run's frozen encoder makes of each image of a split, so that an import reads it as regions.

usage: python experiments/imports/grid_features.py RUN OUT [SPLIT]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from easycap.runs.find import checkpoint_of
from easycap.tasks.create import load_task

run, out, split = Path(sys.argv[1]), Path(sys.argv[2]), (sys.argv[3:] or ["test"])[0]
task = load_task(checkpoint_of(run), device="cpu", with_data=True)
out.mkdir(parents=True)
for example in task.examples(split):
    with torch.no_grad():
        patches = task.model.encode(task.pipeline.inputs([example]).images).patches[0]  # (R,C)
    np.savez(out / f"{example.id}.npz", feat=patches.float().numpy())
