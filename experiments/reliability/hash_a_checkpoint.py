"""Time the checksums of a checkpoint of 500 MB, next to the time to write it."""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from easycap.utils import checksums

# As AdamW leaves them: a third is weights, two thirds are moments.
TENSORS = {"model.safetensors": 42, "training.safetensors": 83}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="a folder of the disk to measure")
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    tensors = {f"w{number}": torch.randn(1_000_000) for number in range(max(TENSORS.values()))}
    for _ in range(options.times):
        with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
            print(
                *(f"{what} {seconds:.2f} s" for what, seconds in measured(Path(scratch), tensors)), sep=", "
            )


def measured(folder: Path, tensors: dict[str, torch.Tensor]) -> list[tuple[str, float]]:
    """Write a checkpoint, make its checksums, check them; return what took how long."""
    moments = [time.perf_counter()]
    for name, count in TENSORS.items():
        save_file(dict(list(tensors.items())[:count]), folder / name)
    moments.append(time.perf_counter())
    checksums.write_checksums(folder)
    moments.append(time.perf_counter())
    assert checksums.damage(folder) is None
    moments.append(time.perf_counter())
    spans = [after - before for before, after in itertools.pairwise(moments)]
    return list(zip(("write", "make checksums", "check them"), spans, strict=True))


if __name__ == "__main__":
    main()
