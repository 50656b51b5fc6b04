"""Seconds of a training step: the quickstart model, and the full model next to Hugging Face's captioner.

The full model is ResNet-101, 10 image tokens and GPT-2 small. Its peer is VisionEncoderDecoderModel: GPT-2
small with cross-attention to the patches of transformers' own ResNet-101, or to a ViT of as many operations.
Both are untrained, see the same batch, and run in turn: forward, backward, clipping, AdamW.

    python experiments/speed/training_step.py                    # minutes; wants a quiet machine
    python experiments/speed/training_step.py --quick            # seconds; tiny models, to see that it runs
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from measure import alternate, keep, machine, markdown, ratio
from peer import Peer, count_flops

from easycap.config.compose import compose
from easycap.config.instantiate import build
from easycap.config.schema import check
from easycap.models.build import build_captioner
from easycap.models.captioner import Captioner
from easycap.training.distributed import SINGLE_PROCESS
from easycap.training.trainer import Trainer
from easycap.types import Batch, Inputs

IDS = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}
PEER = "VisionEncoderDecoder"
FULL = ["experiment=easycap/coco", "encoder.pretrained=false", "data.root=."]  # no data is read
TINY = ["encoder.model=resnet18", "encoder.image_size=64", "decoder.width=64", "decoder.num_layers=2"]
TINY += ["decoder.num_heads=2"]


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    vocab_size = 500 if options.quick else 15_000
    rows = [
        measure_quickstart(options),
        measure_full(FULL + TINY * options.quick, vocab_size, options),
    ]
    print(markdown([as_text(row) for row in rows]))
    keep(options.out, {"machine": machine(options.device), "rows": rows})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="tiny models instead of the full one")
    parser.add_argument("--device", type=torch.device, default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument(
        "--peer", choices=["resnet", "vit"], default="resnet", help="the peer's encoder (%(default)s)"
    )
    parser.add_argument(
        "--images", type=int, default=16, help="images in the full model's batch (%(default)s)"
    )
    parser.add_argument("--captions", type=int, default=1, help="captions of each image (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each (%(default)s)")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    return parser.parse_args()


def measure_quickstart(options: argparse.Namespace) -> dict[str, Any]:
    config = configured(["experiment=easycap/quickstart"], options.precision)
    captioner = captioner_of(config, 400).to(options.device)
    trainer = config["trainer"]
    batch = random_batch(captioner, trainer["batch_size"], trainer["captions_per_image"], 400)
    steps = {"easycap": our_step(config, captioner, batch)}
    seconds = alternate(steps, rounds=options.rounds, device=options.device)
    return summary("quickstart", options.precision, batch, seconds)


def measure_full(overrides: list[str], vocab_size: int, options: argparse.Namespace) -> dict[str, Any]:
    # the peer's loss knows no label smoothing
    config = configured([*overrides, "objective.label_smoothing=0"], options.precision)
    captioner = captioner_of(config, vocab_size)
    peer = Peer(config, vocab_size, encoder=options.peer, pad_id=0, bos_id=1, eos_id=2)
    flops = {"easycap": flops_of(captioner), PEER: peer.flops()}
    captioner.to(options.device), peer.model.to(options.device)
    batch = random_batch(captioner, options.images, options.captions, vocab_size)
    steps = {"easycap": our_step(config, captioner, batch), PEER: peer.step_on(batch, options.precision)}
    seconds = alternate(steps, rounds=options.rounds, device=options.device)
    row = summary("full", options.precision, batch, seconds)
    return row | {"peer_encoder": options.peer, "forward_flops_per_image": flops}


def configured(overrides: list[str], precision: str) -> dict[str, Any]:
    return check(compose([*overrides, "tracking=none", f"trainer.precision={precision}"])[0])


def vocabulary_of(size: int) -> Any:
    class Words(SimpleNamespace):
        def __len__(self) -> int:
            return size

    return Words(**IDS)


def captioner_of(config: dict[str, Any], vocab_size: int) -> Captioner:
    torch.manual_seed(0)
    return build_captioner(config, vocabulary_of(vocab_size))


def random_batch(captioner: Captioner, num_images: int, captions: int, vocab_size: int) -> Batch:
    """Captions as long as they can be, none ended early: the most work there is."""
    size, length = captioner.encoder.preprocessing.size, captioner.decoder.max_length
    words = torch.randint(len(IDS), vocab_size, (num_images * captions, length + 1))
    words[:, 0], words[:, -1] = IDS["bos_id"], IDS["eos_id"]
    return Batch(
        image_ids=[str(i) for i in range(num_images)],
        inputs=Inputs(torch.randint(0, 256, (num_images, 3, size, size), dtype=torch.uint8)),
        input_ids=words[:, :-1],
        targets=words[:, 1:].contiguous(),
        rows=torch.arange(num_images).repeat_interleave(captions),
    )


def our_step(config: dict[str, Any], captioner: Captioner, batch: Batch) -> Callable[[], Any]:
    """Return the product's own training step on the batch."""
    fit = training_of(config, captioner, batch)
    return lambda: fit.train_step([batch])


def training_of(config: dict[str, Any], captioner: Captioner, batch: Batch) -> Trainer:
    """Return a training that can take steps on such batches, and has no data or validation."""
    return Trainer(
        build("trainer", config["trainer"]),
        model=captioner.train(),
        objective=build("objective", config["objective"], **IDS),
        optimization=build("optim", config["optim"])(captioner, lambda step: 1.0),
        loader=SimpleNamespace(batches_per_epoch=1000, batch_size=len(batch.image_ids)),
        validator=SimpleNamespace(metric="CIDEr-D"),
        vocabulary=SimpleNamespace(**IDS),
        tracker=None,
        checkpoints=Path(),
        resume_from=None,
        config=config,
        device=next(captioner.parameters()).device,
        ranks=SINGLE_PROCESS,
    )


def flops_of(captioner: Captioner) -> dict[str, int]:
    """Forward operations for one image with one caption."""
    captioner.eval()
    batch = random_batch(captioner, 1, 1, len(IDS) + 1)
    return {
        "encoder": count_flops(lambda: captioner.encode(batch.inputs.images)),
        "all": count_flops(lambda: captioner(batch.inputs, batch.input_ids, batch.rows)),
    }


def summary(model: str, precision: str, batch: Batch, seconds: dict[str, list[float]]) -> dict[str, Any]:
    row = {
        "model": model,
        "precision": precision,
        "images": len(batch.image_ids),
        "captions": len(batch.input_ids),
        "seconds_per_step": {name: statistics.median(values) for name, values in seconds.items()},
    }
    return row | ({"ratio": ratio(seconds, "easycap", PEER)} if PEER in seconds else {})


def as_text(row: dict[str, Any]) -> dict[str, str]:
    times, flops = row.get("ratio"), row.get("forward_flops_per_image", {})
    shares = [f"{f['encoder'] / 1e9:.2f} + {(f['all'] - f['encoder']) / 1e9:.2f}" for f in flops.values()]
    return {
        "model": row["model"],
        "precision": row["precision"],
        "images x captions": f"{row['images']} x {row['captions'] // row['images']}",
        "easycap, s": f"{row['seconds_per_step']['easycap']:.3f}",
        "peer, s": f"{row['seconds_per_step'][PEER]:.3f}" if times else "-",
        "times as fast": "{median:.2f} ({low:.2f} to {high:.2f})".format(**times) if times else "-",
        "GFLOP forward per image, encoder + rest: easycap, peer": ", ".join(shares) or "-",
    }


if __name__ == "__main__":
    main()
