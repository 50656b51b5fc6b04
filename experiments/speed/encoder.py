"""Images/s of a frozen encoder next to timm's plain forward_features, and of a CNN's training step in channels_last.

    python experiments/speed/encoder.py [--models NAME ...] [--images 32] [--rounds 5] [--out FILE]
    python experiments/speed/encoder.py --quick               # seconds; small images, to see that it runs

Untrained weights with BatchNorm statistics as if trained; bytes in, features out, normalising included. Both see the
same images in turn, with one thread and with all; the features must be the same. As in every command of easycap, glibc
keeps freed memory, on both sides alike. The training step is forward and backward of the encoder with its images in
channels_last and as they come.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from measure import alternate, keep, machine, markdown, ratio
from torch import nn

from easycap.models import image_model
from easycap.models.encoders.timm import TimmEncoder
from easycap.models.image_model import ImageModel
from easycap.utils.allocator import keep_freed_memory

MODELS = ("tf_efficientnet_lite0", "resnet18", "mobilenetv3_large_100", "resnet101")
OURS, PLAIN = "easycap", "timm"


def main() -> None:
    options = parse()
    keep_freed_memory()
    size = 64 if options.quick else 224
    rows = []
    for threads in dict.fromkeys((1, torch.get_num_threads())):
        torch.set_num_threads(threads)
        for name in options.models:
            model = trained(ImageModel(TimmEncoder(model=name, image_size=size, **UNTRAINED)))
            images = torch.randint(0, 256, (options.images, 3, size, size), dtype=torch.uint8)
            for work, functions in (("features", looking(model, images)), ("step", training(model, images))):
                seconds = alternate(functions, rounds=options.rounds)
                rows.append(
                    {"model": name, "work": work, "threads": threads} | summary(seconds, options.images)
                )
                print(markdown([as_text(rows[-1])]).splitlines()[-1], flush=True)
    print(markdown([as_text(row) for row in rows]))
    keep(options.out, {"machine": machine(), "load_average": os.getloadavg(), "rows": rows})


UNTRAINED = {
    "pretrained": False,
    "weights": None,
    "crop_pct": None,
    "pooled": False,
    "pool": None,
    "squash": False,
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="images of 64 pixels")
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME", help="timm's (%(default)s)")
    parser.add_argument("--images", type=int, default=32, help="of a batch (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    return parser.parse_args()


def trained(model: ImageModel) -> ImageModel:
    """Give BatchNorm statistics that are not those of the start, where folding would be trivial."""
    torch.manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.uniform_(-0.1, 0.1)
            part.running_var.uniform_(0.8, 1.2)
    return model


def caching(model: ImageModel, images: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Return what a feature cache does with the images of a batch."""
    model.freeze_encoder(True)
    model.eval().fold_encoder(10 * len(images))

    @torch.no_grad()
    def encode() -> torch.Tensor:
        return model.encode(images).patches

    return encode


def looking(model: ImageModel, images: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """What a feature cache does, and timm's own way."""
    ours = caching(model, images)

    @torch.no_grad()
    def plain() -> torch.Tensor:
        pixels = images.float().sub_(model.mean).div_(model.std)
        return model.encoder.network.forward_features(pixels).flatten(2).transpose(1, 2)

    found, expected = ours(), plain()
    off = float((found - expected).abs().max() / expected.abs().max())
    if off > 1e-4:
        raise SystemExit(f"the features differ by {off:.1e} of the largest")
    return {OURS: ours, PLAIN: plain}


def training(model: ImageModel, images: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Forward and backward with images in channels_last and without."""
    model.freeze_encoder(False)
    model.train()

    def step(devices: set[str]) -> None:
        with patch.object(image_model, "_CHANNELS_LAST", devices):
            model.encode(images).patches.square().mean().backward()
        model.zero_grad()

    return {OURS: lambda: step({"cpu"}), PLAIN: lambda: step(set())}


def summary(seconds: dict[str, list[float]], images: int) -> dict[str, Any]:
    rates = {name: images / statistics.median(values) for name, values in seconds.items()}
    return {"images_per_second": rates, "ratio": ratio(seconds, OURS, PLAIN)}


def as_text(row: dict[str, Any]) -> dict[str, str]:
    rates = row["images_per_second"]
    return {
        "model": row["model"],
        "work": row["work"],
        "threads": str(row["threads"]),
        "easycap, images/s": f"{rates[OURS]:.1f}",
        "plain, images/s": f"{rates[PLAIN]:.1f}",
        "times as fast (range)": "{median:.2f} ({low:.2f} to {high:.2f})".format(**row["ratio"]),
    }


if __name__ == "__main__":
    main()
