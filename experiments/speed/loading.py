"""Images per second and core: easycap's loading next to PIL + Resize + CenterCrop + ToTensor + Normalize.

    python experiments/speed/loading.py [--folder PHOTOS] [--count 100] [--rounds 7] [--out FILE]

Without --folder on generated JPEGs of 640x480 pixels. Both sides read the same files on one thread, in turn; seconds
are those of the processor, which other work on the machine disturbs less. easycap hands over uint8 and normalises
whole batches on the device; "normalised" has that done by the same core. The mean difference of the pixels says what
scaled decoding changes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from measure import alternate, keep, machine, markdown, ratio
from PIL import Image
from torchvision import transforms

from easycap.data.image_files import image_files
from easycap.data.images import ImageFile
from easycap.data.transforms import Transform
from easycap.types import Preprocessing

SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or make_photos(Path(scratch), args.count)
        files = list(islice(image_files([folder]), args.count))
        found = {crop: compare(files, crop, args.rounds) for crop in (1.0, 0.875)}
    rows = [
        {
            "224 pixels of": f"{224 / crop:.0f}",
            "easycap, images/s": f"{of['images_per_second']['easycap']:.0f}",
            "normalised": f"{of['images_per_second']['easycap_normalised']:.0f}",
            "PIL + torchvision": f"{of['images_per_second']['torchvision']:.0f}",
            "times as fast (range)": "{median:.2f} ({low:.2f} to {high:.2f})".format(**of["ratio"]),
            "normalised, times": "{median:.2f} ({low:.2f} to {high:.2f})".format(**of["ratio_normalised"]),
            "difference, mean of 255": f"{of['mean_difference']:.2f}",
        }
        for crop, of in found.items()
    ]
    print(markdown(rows))
    keep(
        args.out,
        {"machine": machine(), "images": len(files), "by_crop": {str(k): v for k, v in found.items()}},
    )


def make_photos(folder: Path, count: int) -> Path:
    """Smooth colours with edges and grain, about 100 kB each as JPEGs of photos are."""
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        photo = np.asarray(Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)).astype(int)
        left, top = random.integers(0, 400), random.integers(0, 300)
        photo[top : top + 150, left : left + 200] = random.integers(0, 256, 3)
        photo += random.normal(0, 8, photo.shape).astype(int)
        Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)
    return folder


def compare(files: Sequence[Path], crop: float, rounds: int) -> dict:
    """Images per second of each side, how many times as fast easycap is, and how far its pixels are away."""
    ours = Transform(Preprocessing(SIZE, MEAN, STD, crop))
    theirs = transforms.Compose(
        [
            transforms.Resize(round(SIZE / crop)),
            transforms.CenterCrop(SIZE),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

    def load() -> torch.Tensor:
        return torch.stack([ours(ImageFile(file)) for file in files])

    def load_normalised() -> torch.Tensor:
        return load().float().sub_(mean * 255).div_(std * 255)

    def load_theirs() -> torch.Tensor:
        return torch.stack([theirs(Image.open(file).convert("RGB")) for file in files])

    sides: dict[str, Callable[[], torch.Tensor]] = {
        "easycap": load,
        "easycap_normalised": load_normalised,
        "torchvision": load_theirs,
    }
    difference = (load() - 255 * (load_theirs() * std + mean)).abs()
    seconds = alternate(sides, rounds=rounds, clock=time.process_time)
    return {
        "images_per_second": {name: len(files) / median(times) for name, times in seconds.items()},
        "ratio": ratio(seconds, "easycap", "torchvision"),
        "ratio_normalised": ratio(seconds, "easycap_normalised", "torchvision"),
        "mean_difference": difference.mean().item(),
    }


if __name__ == "__main__":
    main()
