"""A training step, generation and a feature pass next to VisionEncoderDecoder and nanoVLM, in turn, on the same work.

ViT-B/16 at 224 pixels, 49 image tokens, SmolLM2-135M's sizes and 49,152 words, everything trained by AdamW; every
caption has all 20 words. For training steps and feature passes, the share of the speed of large matrix products in
the same precision is given too. nanoVLM is measured where a checkout is given (github.com/huggingface/nanoVLM; nothing
of it is part of this project); it has no beam search. bf16 is measured where the processor multiplies it.

    python experiments/speed/peers.py --nanovlm FOLDER --out experiments/speed/results/peers.json    # half an hour
    python experiments/speed/peers.py --quick [--nanovlm FOLDER]    # seconds; tiny models, to see that it runs
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import decoding
import torch
from measure import alternate, keep, machine, markdown, ratio
from torch.utils.flop_counter import FlopCounterMode
from training_step import captioner_of, configured, our_step, random_batch
from vlm_peers import FULL, TINY, HuggingFace, NanoVLM, Sizes, step_of

from easycap.models.captioner import Captioner
from easycap.training.hardware import Precision, autocast, has_bf16
from easycap.types import Inputs
from easycap.utils.allocator import keep_freed_memory

OURS, WORDS = "easycap", 20
decoding.MIN_LENGTH = decoding.MAX_LENGTH = WORDS  # as many words of every side
Functions = dict[str, Callable[[], Any]]


def main() -> None:
    options = parse()
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    sizes = TINY if options.quick else FULL
    rows = []
    for precision in ["fp32", "bf16"] if has_bf16(options.device) else ["fp32"]:
        speed = matrix_speed(precision, options)
        for work, functions in works(sizes, precision, options):
            seconds = alternate(functions, rounds=options.rounds, device=options.device)
            shares = {}
            if work.startswith(("training", "features")):
                shares = {name: flops_of(run) / min(seconds[name]) / speed for name, run in functions.items()}
            rows += [summary(work, precision, seconds, shares, peer) for peer in functions if peer != OURS]
            for row in rows[1 - len(functions) :]:
                print(markdown([as_text(row)]).splitlines()[-1], flush=True)
    print(markdown([as_text(row) for row in rows]))
    keep(options.out, {"machine": machine(options.device), "load_average": os.getloadavg(), "rows": rows})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", type=torch.device, default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny models")
    parser.add_argument("--nanovlm", type=Path, metavar="FOLDER", help="a checkout of nanoVLM")
    parser.add_argument("--images", type=int, default=4, help="images of a batch (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each (%(default)s)")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    return parser.parse_args()


def matrix_speed(precision: str, options: argparse.Namespace) -> float:
    """FLOP/s of the product of two large matrices, 2 per multiply-add."""
    side = 256 if options.quick else 3072
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.randn(side, side, device=options.device).to(dtype)
    seconds = alternate({"product": lambda: matrix @ matrix}, rounds=10, device=options.device)
    return 2 * side**3 / min(seconds["product"])


def flops_of(run: Callable[[], Any]) -> int:
    """Count the operations of one more call."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def works(sizes: Sizes, precision: str, options: argparse.Namespace) -> Iterator[tuple[str, Functions]]:
    """What is measured, with the function of each side."""
    torch.manual_seed(0)
    config = configured(settings(sizes), precision)
    captioner = captioner_of(config, sizes.words).to(options.device)
    peers = [HuggingFace(sizes)] + ([NanoVLM(sizes, options.nanovlm)] if options.nanovlm else [])
    for peer in peers:
        peer.model.to(options.device)
    context = partial(autocast, options.device, Precision(precision))
    for captions in (1, 5):
        batch = random_batch(captioner, options.images, captions, sizes.words - 1)
        steps = {OURS: our_step(config, captioner, batch)}
        steps |= {peer.name: step_of(peer.model, peer.loss, batch, context) for peer in peers}
        yield f"training step, {options.images} images x {captions}", steps
    captioner.eval().requires_grad_(False)
    for peer in peers:
        peer.model.eval()
    images = batch.inputs.images.to(options.device)

    def looked(function: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with torch.no_grad(), context():
                return function()

        return run

    for beams in (1, 5):
        work = "greedy" if beams == 1 else f"beam {beams}"
        functions = {OURS: looked(partial(generate, captioner, images, beams))}
        for peer in peers:
            if beams == 1 or peer.beams:
                functions[peer.name] = looked(partial(peer.generate, images, beams, WORDS))
        yield f"{work}, {options.images} images", functions
    functions = {OURS: looked(partial(captioner.encode, images))}
    functions |= {peer.name: looked(partial(peer.features, images)) for peer in peers}
    yield f"features, {options.images} images", functions


def settings(sizes: Sizes) -> list[str]:
    """Our model of these sizes, as a user would ask for it."""
    architecture = {
        "model_type": "llama",
        "hidden_size": sizes.width,
        "intermediate_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "tie_word_embeddings": "true",
        "max_position_embeddings": 512,
    }
    model = "vit_base_patch16_224" if sizes == FULL else "test_vit"
    return [
        "experiment=easycap/coco", "data.root=.", "encoder=timm", f"encoder.model={model}", "encoder.pretrained=false",
        f"encoder.image_size={sizes.image}", "image_tokens=grid", f"image_tokens.count={sizes.tokens}",
        "decoder=causal_lm", f"decoder.max_length={WORDS}", "decoder.dropout=0", "objective.label_smoothing=0",
        "decoder.architecture={" + ", ".join(f"{key}: {value}" for key, value in architecture.items()) + "}",
        "optim=adamw", "trainer.unfreeze_encoder_at_epoch=0",
    ]  # fmt: skip


def generate(captioner: Captioner, images: torch.Tensor, beams: int) -> torch.Tensor:
    return decoding.ours(beams)(captioner.decoder, captioner.build_memory(Inputs(images))).words


def summary(
    work: str, precision: str, seconds: dict[str, list[float]], shares: dict[str, float], peer: str
) -> dict[str, Any]:
    return {
        "work": work,
        "precision": precision,
        "peer": peer,
        "seconds": {name: statistics.median(seconds[name]) for name in (OURS, peer)},
        "ratio": ratio(seconds, OURS, peer),
        "share_of_matrix_speed": {name: shares[name] for name in (OURS, peer)} if shares else None,
    }


def as_text(row: dict[str, Any]) -> dict[str, str]:
    shares = row["share_of_matrix_speed"] or {}
    return {
        "work": row["work"],
        "precision": row["precision"],
        "peer": row["peer"],
        "easycap, s": f"{row['seconds'][OURS]:.3f}",
        "peer, s": f"{row['seconds'][row['peer']]:.3f}",
        "times as fast (range)": "{median:.2f} ({low:.2f} to {high:.2f})".format(**row["ratio"]),
        "of the speed of matrix products": ", ".join(f"{share:.0%}" for share in shares.values()) or "-",
    }


if __name__ == "__main__":
    main()
