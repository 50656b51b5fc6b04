"""Time of write_checksums and damage on a checkpoint of 500 MB, and of writing it."""

import os, sys, time, tempfile
from pathlib import Path
import torch
from safetensors.torch import save_file
from easycap.utils import checksums
from easycap.training.checkpoint_files import _sync

torch.set_num_threads(1)
with tempfile.TemporaryDirectory(dir=sys.argv[1]) as t:
    f = Path(t)
    for i in range(3):
        a = {f"w{i}": torch.randn(1_000_000) for i in range(42)}
        b = {f"w{i}": torch.randn(1_000_000) for i in range(83)}
        s = time.perf_counter()
        save_file(a, f / "model.safetensors")
        save_file(b, f / "training.safetensors")
        w = time.perf_counter()
        checksums.write_checksums(f)
        h = time.perf_counter()
        _sync(*f.iterdir(), f)
        y = time.perf_counter()
        checksums._damage.cache_clear()
        assert checksums.damage(f) is None
        d = time.perf_counter()
        print(
            f"write {w - s:.2f}  hash {h - w:.2f}  fsync {y - h:.2f}  check {d - y:.2f}",
            sum(p.stat().st_size for p in f.iterdir()) / 1e6,
            "MB",
        )
