"""CPU time and memory of a fine-tuning step of the recipes huggingface/*, at the models' published sizes.

Weights are random and the words of the tokenizer made up, as many as the model has: nothing is downloaded. A step is
the product's own: forward, backward, clipping, AdamW. Where the recipe caches features of the frozen vision tower, it
runs once per image and is measured apart. CPU seconds are counted, on one thread, so that other work on the machine
matters little.

A recipe may have settings after it, as in "smolvlm_lora captioner.tiles=true".

    python experiments/speed/fine_tuning.py --out experiments/speed/results/fine_tuning.json   # minutes, 8 GB
    python experiments/speed/fine_tuning.py --quick              # tiny models, to see that it runs
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from fine_tuned_models import MODELS
from measure import keep, machine, markdown
from PIL import Image
from training_step import training_of

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.models.huggingface.build_model import build_image_text_model
from easycap.models.huggingface.model_input import ModelInput
from easycap.models.huggingface.model_tokens import ModelTokens
from easycap.runs.environment import peak_memory
from easycap.training.hardware import checkpoint_gradients
from easycap.types import Batch, Inputs
from easycap.utils.processed_images import FEATURES, ProcessedImages

WORDS = 14  # tokens of a caption, end included
BATCH = {"blip_lora": 4, "vit_gpt2": 4, "smolvlm_lora": 4, "smolvlm_lora captioner.tiles=true": 1}
CPU = torch.device("cpu")


def main() -> None:
    options = parse()
    if options.child:
        print(json.dumps(measured(options.child, options.quick)))
        return
    rows = []
    for recipe in options.recipes:
        load = os.getloadavg()[0]
        asked = [sys.executable, __file__, "--child", recipe, *["--quick"] * options.quick]
        rows.append(json.loads(subprocess.check_output(asked).splitlines()[-1]) | {"load": round(load, 1)})
    print(markdown([as_text(row) for row in rows]))
    keep(options.out, {"machine": machine() | {"threads": 1}, "rows": rows})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "recipes", nargs="*", default=list(BATCH), help="of conf/experiment/huggingface (all)"
    )
    parser.add_argument("--quick", action="store_true", help="tiny models")
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(recipe: str, quick: bool) -> dict[str, Any]:
    """Return CPU seconds and bytes of a step of a recipe, in a process that does nothing else."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        name, *settings = recipe.split()
        for part in MODELS[name](quick):
            part.save_pretrained(folder)
        overrides = [f"experiment=huggingface/{name}", "data.images=.", "trainer.precision=fp32", *settings]
        config = check(compose([*overrides, f"captioner.model={folder}", "tracking=none"]).config)
        tokens = ModelTokens(folder, None, tiles=config["captioner"]["tiles"])
    config["captioner"]["model"] = ""  # random weights
    model = build_image_text_model(config, tokens)
    model.freeze_encoder(True)
    images = ModelInput(tokens)(
        SimpleNamespace(load=lambda: Image.effect_noise((640, 480), 80).convert("RGB"))
    )
    images, tower = with_features(model, tokens, images)
    if config["trainer"]["gradient_checkpointing"]:
        checkpoint_gradients(model)
    before = resident()
    step = training_of(config, model.train(), batch := batch_of(images, BATCH[recipe], tokens.num_own))
    seconds = [cpu_seconds(lambda: step.train_step([batch])) for _ in range(2)]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "recipe": recipe,
        "prompt_tokens": model.prompts(batch.inputs.images)["input_ids"].shape[1] if tower is None else None,
        "images": len(batch.image_ids),
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained": trained,
        "tower_seconds_per_image": tower,
        "step_seconds": seconds[-1],
        "weights_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "resident_before_bytes": before,
        "peak_bytes": peak_memory(CPU)["peak_memory_bytes"],
    }


def with_features(model: Any, tokens: Any, images: ProcessedImages) -> tuple[ProcessedImages, float | None]:
    """Return the image as the recipe's steps get it, and the CPU seconds of the vision tower where that runs before."""
    if not model.features_can_be_cached:
        return images, None
    found: list[Any] = []
    with torch.no_grad():
        seconds = min(cpu_seconds(lambda: found.append(model.encode(images))) for _ in range(2))
    return ProcessedImages([{FEATURES: found[-1].patches, "input_ids": tokens.start_ids()}]), seconds


def batch_of(images: ProcessedImages, count: int, vocab_size: int) -> Batch:
    words = torch.randint(4, vocab_size, (count, WORDS + 1))
    return Batch(
        image_ids=[str(index) for index in range(count)],
        inputs=Inputs(images.select([0] * count)),
        input_ids=words[:, :-1],
        targets=words[:, 1:].contiguous(),
        rows=torch.arange(count),
    )


def cpu_seconds(function: Any) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def resident() -> int:
    """Bytes of memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def as_text(row: dict[str, Any]) -> dict[str, str]:
    tower, state = row["tower_seconds_per_image"], 12 * row["trained"]
    activations = max(0, row["peak_bytes"] - row["resident_before_bytes"] - state) / row["images"]
    return {
        "recipe": row["recipe"],
        "weights, million": f"{row['parameters'] / 1e6:.0f}",
        "of them trained": f"{row['trained'] / 1e6:.1f}",
        "images in a step": str(row["images"]),
        "CPU s, vision tower, once per image": "in the step" if tower is None else f"{tower:.1f}",
        "CPU s, step": f"{row['step_seconds']:.1f}",
        "peak memory, GB": f"{row['peak_bytes'] / 1e9:.1f}",
        "estimate for batch 8, GB": f"{(row['weights_bytes'] + state + 8 * activations) / 1e9:.1f}",
        "load before": str(row["load"]),
    }


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    main()
