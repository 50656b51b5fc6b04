"""CPU time of a LoRA step and of greedy decoding with a language model of SmolLM2-135M's size, by what it reads.

An image is read as some tokens, and its captions after them. Weights are random, features are given (as from a cache).
Every setting takes turns with all others, on one thread, and CPU seconds are counted, so that other work on the machine
slows them alike; the ratios are what holds elsewhere.

    python experiments/speed/language_model.py --out experiments/speed/results/language_model.avx2.json
    python experiments/speed/language_model.py --quick     # a tiny model, to see that it runs
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from decoding import Ids, ours
from measure import alternate, keep, machine, markdown, ratio
from torch import nn

from easycap.models.decoders.causal_lm import CausalLM
from easycap.models.decoders.language_models import Tune
from easycap.models.decoders.merged_lora import merged_lora
from easycap.types import Memory

SMOLLM2 = {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
SMOLLM2 |= {"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "tie_word_embeddings": True}
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY |= {"num_key_value_heads": 1, "head_dim": 16}
WORDS, MAX_LENGTH = 13, 20  # of a caption, with bos; a caption of Flickr8k has 12.8 tokens on average


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    sizes, vocab_size = (SMOLLM2 | TINY, 500) if options.quick else (SMOLLM2, 49_153)
    found = {
        "training": measure_training(sizes, vocab_size, options),
        "generation": measure_generation(sizes, vocab_size, options),
    }
    for rows in found.values():
        print(markdown([as_text(row) for row in rows]), end="\n\n")
    load = {"load": os.getloadavg(), "cores": os.cpu_count()}
    keep(
        options.out, {"machine": machine() | load, "images": options.images, "rounds": options.rounds} | found
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tiny model")
    parser.add_argument("--images", type=int, default=8, help="images in a batch (%(default)s)")
    parser.add_argument("--tokens", type=int, nargs="+", default=[49, 10], help="per image (%(default)s)")
    parser.add_argument("--captions", type=int, nargs="+", default=[1, 5], help="per image (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="timings of each (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    return parser.parse_args()


def build_decoder(sizes: dict[str, Any], vocab_size: int, tune: Tune) -> CausalLM:
    torch.manual_seed(0)
    own = dict.fromkeys(("width", "num_layers", "num_heads"))
    decoder = CausalLM(
        vocab_size=vocab_size, pad_id=Ids.pad_id, bos_id=Ids.bos_id, eos_id=Ids.eos_id, subword_ids=[],
        **own, max_positions=128, max_length=MAX_LENGTH, bos=True, dropout=0.0, pretrained=None, architecture=sizes,
        embedding="random", tune=tune, lora_rank=8, lora_alpha=16.0, predict_special=True,
    )  # fmt: skip
    for name, weight in decoder.named_parameters():
        if "lora_B" in name:  # zero before training
            nn.init.normal_(weight, std=0.02)
    return decoder


def random_memory(images: int, tokens: int, width: int) -> Memory:
    values = torch.randn(images, tokens, width, requires_grad=True)  # from an image module in training
    return Memory(values, torch.ones(images, tokens, dtype=torch.bool), {"image": slice(0, tokens)})


def step_of(decoder: CausalLM, images: int, tokens: int, captions: int) -> Callable[[], None]:
    """Return the forward and backward pass of a training step; the optimiser's share is small."""
    decoder.train()
    words = torch.randint(4, decoder.token_embedding.num_embeddings, (images * captions, WORDS + 1))
    rows, real = (
        torch.arange(images).repeat_interleave(captions),
        torch.ones(len(words), WORDS, dtype=torch.bool),
    )
    memory = random_memory(images, tokens, decoder.memory_dim)

    def step() -> None:
        output = decoder.read_real(words[:, :-1], real, memory, rows)
        nn.functional.cross_entropy(output.logits, words[:, 1:].flatten()).backward()
        decoder.zero_grad()
        memory.tokens.grad = None

    return step


def measure_training(
    sizes: dict[str, Any], vocab_size: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    steps, settings = {}, {}
    for tune in (Tune.lora, Tune.none):
        decoder = build_decoder(sizes, vocab_size, tune)
        for tokens in options.tokens:
            for captions in options.captions:
                name = f"{tune.name}, {tokens} tokens, {captions} captions"
                settings[name] = {"tune": tune.name, "image_tokens": tokens, "captions_per_image": captions}
                steps[name] = step_of(decoder, options.images, tokens, captions)
    seconds = alternate(steps, rounds=options.rounds, clock=time.process_time)
    return rows_of(seconds, settings, lambda one: options.images * one["captions_per_image"])


def measure_generation(
    sizes: dict[str, Any], vocab_size: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    decoder = build_decoder(sizes, vocab_size, Tune.lora).eval()
    calls, settings = {}, {}
    for tokens in options.tokens:
        memory = random_memory(options.images, tokens, decoder.memory_dim)
        for merged in (False, True):
            name = f"{tokens} tokens, LoRA {'merged' if merged else 'beside'}"
            settings[name] = {"image_tokens": tokens, "lora_merged": merged}
            calls[name] = generation_of(decoder, memory, merged)
    seconds = alternate(calls, rounds=options.rounds, clock=time.process_time)
    return rows_of(seconds, settings, lambda one: options.images)


def generation_of(decoder: CausalLM, memory: Memory, merged: bool) -> Callable[[], None]:
    def generate() -> None:
        with torch.no_grad():
            if merged:
                with merged_lora(decoder.lm):
                    ours(1)(decoder, memory)
            else:
                ours(1)(decoder, memory)

    return generate


def rows_of(
    seconds: dict[str, list[float]], settings: dict[str, dict[str, Any]], captions: Callable[[dict], int]
) -> list[dict[str, Any]]:
    """One row per setting: CPU seconds per caption, and how many times less that is than in the first row."""
    first = next(iter(seconds))
    per_caption = {name: [s / captions(settings[name]) for s in values] for name, values in seconds.items()}
    return [
        settings[name]
        | {
            "cpu_seconds_per_caption": statistics.median(values),
            "times_less": ratio(per_caption, name, first),
        }
        for name, values in per_caption.items()
    ]


def as_text(row: dict[str, Any]) -> dict[str, str]:
    times = row["times_less"]
    shown = {name: str(value) for name, value in row.items() if not isinstance(value, (float, dict))}
    return shown | {
        "CPU seconds per caption": f"{row['cpu_seconds_per_caption']:.3f}",
        "times less": "{median:.2f} ({low:.2f} to {high:.2f})".format(**times),
    }


if __name__ == "__main__":
    main()
