"""How similar the image tokens of an untrained captioner are: mean cosine within an image and between images.

    python experiments/language_model/token_similarity.py data.root=FLICKR8K [encoder.weights=W] [image_tokens.count=5]
    python experiments/language_model/token_similarity.py resampler split data.root=FLICKR8K

Other settings are given as for `easycap train`; image_tokens is varied here, over those named or `WAYS`. The images are
the first 64 of val. The language model is not needed: a small GPT-2 of SmolLM2's width stands in.
"""

from __future__ import annotations

import sys

import torch
from torch.nn.functional import normalize

from easycap.config.compose import compose
from easycap.config.own_dirs import use_config_dirs
from easycap.config.schema import check
from easycap.train import create_task

WAYS = ("split", "mlp", "resampler", "mapper")
IMAGES = 64


def main() -> None:
    words = use_config_dirs(sys.argv[1:])[0]
    overrides = [word for word in words if "=" in word]
    print("| `image_tokens` | within an image | between images |\n|---|---:|---:|")
    for way in [word for word in words if "=" not in word] or WAYS:
        within, between = similarities(way, overrides)
        print(f"| `{way}` | {within:.2f} | {between:.2f} |", flush=True)


@torch.no_grad()
def similarities(way: str, overrides: list[str]) -> tuple[float, float]:
    """Mean cosine between the tokens of an image, and between images for each token position, before training."""
    torch.manual_seed(0)
    sizes = ["decoder.width=576", "decoder.num_heads=9"]  # SmolLM2-135M's
    recipe = [
        "experiment=easycap/flickr8k_gpt2",
        f"image_tokens={way}",
        "image_tokens.count=10",
        *sizes,
        "device=cpu",
        "tracking=none",
    ]
    task = create_task(check(compose([*recipe, *overrides]).config))
    inputs = task.pipeline.inputs(task.examples("val")[:IMAGES])
    tokens = normalize(task.model.eval().build_memory(inputs).tokens.float(), dim=-1)  # (N,K,D)
    return mean_of_pairs(tokens), mean_of_pairs(tokens.transpose(0, 1))


def mean_of_pairs(vectors: torch.Tensor) -> float:
    """Mean dot product of pairs of different vectors, over N sets of K unit vectors (N,K,D)."""
    count = vectors.shape[1]
    products = (vectors @ vectors.transpose(1, 2)).sum((1, 2)) - count
    return float(products.mean() / (count * (count - 1)))


if __name__ == "__main__":
    main()
