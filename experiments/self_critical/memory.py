"""Peak memory of self-critical training steps with 1, 5 and 16 samples of each image, next to cross entropy.

Two steps of an untrained model on images of noise, each setting in a process of its own; samples are as long as they
can be, since nothing has learnt to end. What counts is what the process holds at most, less what it held before:
activations, gradients, the optimiser's moments. Linux only.

    python experiments/self_critical/memory.py         # the quickstart's model, 32 images: a minute
    python experiments/self_critical/memory.py --full  # ResNet-101 and GPT-2 small, 4 images: minutes, up to 4 GB
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from easycap.config.compose import compose
from easycap.config.instantiate import build, special_ids
from easycap.config.schema import check
from easycap.metrics import DocumentFrequencies
from easycap.metrics.rewards import Rewards
from easycap.models.build import build_captioner
from easycap.types import Batch, Inputs, Vocabulary

SMALL = ["experiment=easycap/quickstart_cider"]
FULL = ["experiment=easycap/coco_cider", "encoder.pretrained=false", "data.root=.", "trainer.batch_size=4"]
SETTINGS = {
    "cross entropy, 1 caption": ["objective=xe"],
    "1 sample, greedy baseline": ["objective.baseline=greedy", "objective.num_samples=1"],
    "5 samples": ["objective.num_samples=5"],
    "16 samples": ["objective.num_samples=16"],
    "16 samples, rows_per_pass=16": ["objective.num_samples=16", "objective.rows_per_pass=16"],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="the full model instead of the quickstart's")
    parser.add_argument("--one", nargs="*", help=argparse.SUPPRESS)  # a process of its own: these overrides
    options = parser.parse_args()
    if options.one:
        print(measure(options.one, vocab_size=15_000 if options.full else 222))
        return
    print("| | MiB |\n|---|---:|")
    for name, overrides in SETTINGS.items():
        command = [sys.executable, __file__, *["--full"] * options.full, "--one"]
        command += [*(FULL if options.full else SMALL), *overrides]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        print(f"| {name} | {float(found) / 2**20:,.0f} |", flush=True)


def measure(overrides: list[str], vocab_size: int) -> int:
    """Return the bytes that two training steps need at most beyond what was there before."""
    config = check(compose([*overrides, "tracking=none"])[0])
    captions = [" ".join(f"w{n + i}" for i in range(12)) for n in range(0, vocab_size, 12)]
    words = build("vocab", config["vocab"], captions=captions)
    torch.manual_seed(0)
    captioner = build_captioner(config, words)
    if config["trainer"]["unfreeze_encoder_at_epoch"] is None:
        captioner.freeze_encoder(True)
    captioner.train()
    batch = batch_of(config["trainer"]["batch_size"], captioner, words, captions)
    objective = objective_of(config["objective"], words, dict.fromkeys(batch.image_ids, captions[:5]))
    optimizers = build("optim", config["optim"])(captioner, lambda step: 1.0)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the highest so far
    for step in range(2):
        objective(captioner, batch)[0].backward()
        optimizers.step(step)
        optimizers.zero_grad()
    return resident("VmHWM") - before


def objective_of(settings: dict[str, Any], words: Vocabulary, references: dict[str, list[str]]) -> Any:
    df = DocumentFrequencies.from_references(references.values(), source="train", eos=True)
    return build(
        "objective",
        settings,
        vocabulary=words,
        make_rewards=lambda weights, eos: Rewards(
            weights, eos=eos, references=references, annotations={}, scorers=["cider_d"], df=df
        ),
        **special_ids(words),
    )


def batch_of(images: int, captioner: Any, words: Vocabulary, captions: list[str]) -> Batch:
    size = captioner.encoder.preprocessing.size
    caption_ids = torch.tensor([words.encode(captions[0])] * images)
    ids = [str(i) for i in range(images)]
    pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8)
    read = torch.cat([torch.full((images, 1), words.bos_id), caption_ids], 1)
    targets = torch.cat([caption_ids, torch.full((images, 1), words.eos_id)], 1)
    return Batch(ids, Inputs(pixels), read, targets, torch.arange(images))


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
