"""Captions per second of greedy and beam search with GPT-2 small, next to Hugging Face's `generate`.

Both decode the same images with the same weights, in turn, and must give the same token ids.

    python experiments/speed/decoding.py             # minutes; wants a quiet machine
    python experiments/speed/decoding.py --quick     # seconds; a tiny model, to see that it runs
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
from pathlib import Path
from typing import Any

import torch
from measure import alternate, keep, machine, markdown, ratio
from torch.nn.functional import pad
from transformers import GPT2Config, GPT2LMHeadModel

from easycap.generation.beam import Beam, OnEnd
from easycap.generation.greedy import Greedy
from easycap.generation.logits_processors import DecodingSettings
from easycap.models.decoders.causal_lm import CausalLM
from easycap.models.decoders.language_models import Tune
from easycap.training.hardware import Precision, autocast
from easycap.types import Generated, Generator, Memory

UNK, BOS, EOS, PAD = 0, 1, 2, 3  # generate pads with eos where the pad id is 0
MIN_LENGTH, MAX_LENGTH, MEAN_WORDS = 8, 20, 12  # captions of COCO have about 12 tokens with eos
GPT2_SMALL = {"width": 768, "num_layers": 12, "num_heads": 12, "vocab_size": 15_000}
TINY = {"width": 64, "num_layers": 2, "num_heads": 2, "vocab_size": 500}


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    decoder = build_decoder(TINY if options.quick else GPT2_SMALL).to(options.device)
    memory = random_memory(options.images, options.image_tokens, decoder.memory_dim, options.device)
    end_captions(decoder, memory)
    rows = []
    for num_beams in (1, options.beams):
        rows.append(measure(decoder, memory, num_beams, options))
    print(markdown([as_text(row) for row in rows]))
    keep(options.out, {"machine": machine(options.device), "settings": settings(options), "rows": rows})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tiny model instead of GPT-2 small")
    parser.add_argument("--device", type=torch.device, default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--images", type=int, default=16, help="images in the batch (%(default)s)")
    parser.add_argument(
        "--image-tokens", type=int, default=10, help="image tokens before the words (%(default)s)"
    )
    parser.add_argument("--beams", type=int, default=5, help="of the beam search (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each (%(default)s)")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    return parser.parse_args()


def build_decoder(sizes: dict[str, int]) -> CausalLM:
    """An untrained GPT-2 whose weights are scaled up until words differ from image to image."""
    ids = {"pad_id": PAD, "bos_id": BOS, "eos_id": EOS}
    untrained = {"pretrained": None, "architecture": None, "embedding": "random", "subword_ids": None}
    whole = {"tune": Tune.all, "lora_rank": 8, "lora_alpha": 16.0, "predict_special": True}
    decoder = CausalLM(
        **sizes, max_positions=64, max_length=MAX_LENGTH, bos=True, dropout=0.0, **untrained, **whole, **ids
    )
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if parameter.ndim > 1 and "wte" not in name:
                parameter.mul_(30 if "wpe" in name else 6)
    return decoder.eval()


def random_memory(num_images: int, num_tokens: int, width: int, device: torch.device) -> Memory:
    tokens = torch.randn(num_images, num_tokens, width).to(device)
    mask = torch.ones(num_images, num_tokens, dtype=torch.bool, device=device)
    return Memory(tokens, mask, {"image": slice(0, num_tokens)})


def end_captions(decoder: CausalLM, memory: Memory) -> None:
    """Scale eos's embedding until greedy captions have about MEAN_WORDS words: untrained ones never end."""
    embedding = decoder.lm.get_input_embeddings().weight.detach()
    direction, low, high = embedding[EOS].clone(), 1.0, 16.0
    for _ in range(6):
        scale = (low * high) ** 0.5
        embedding[EOS] = direction * scale
        mean = float((ours(1)(decoder, memory).words != PAD).sum(1).float().mean())
        low, high = (scale, high) if mean > MEAN_WORDS else (low, scale)


class Ids:
    """As much of a vocabulary as generation asks for."""

    pad_id, bos_id, eos_id, unk_id = PAD, BOS, EOS, UNK


def ours(num_beams: int) -> Generator:
    shared = DecodingSettings(
        max_length=MAX_LENGTH, min_length=MIN_LENGTH, no_repeat_ngram=0, may_repeat=(), allow_unk=False
    )
    if num_beams == 1:
        return Greedy(Ids(), shared=shared)
    return Beam(
        Ids(),
        shared=shared,
        num_beams=num_beams,
        length_penalty=1.0,
        early_stopping=False,
        on_end=OnEnd.refill,
    )


def of_transformers(decoder: CausalLM) -> GPT2LMHeadModel:
    """transformers' GPT-2 with the weights of our decoder, on its device."""
    own = decoder.lm.config
    config = GPT2Config(
        vocab_size=own.vocab_size,
        n_embd=own.hidden_size,
        n_layer=own.num_hidden_layers,
        n_head=own.num_attention_heads,
        n_positions=own.max_position_embeddings,
        activation_function="gelu_pytorch_tanh",
        **{"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS},
    )
    model = GPT2LMHeadModel(config).to(decoder.lm.lm_head.weight.device)
    model.load_state_dict(decoder.lm.state_dict())
    return model.eval()


def theirs(model: GPT2LMHeadModel, memory: Memory, num_beams: int) -> torch.Tensor:
    bos = model.get_input_embeddings()(torch.full_like(memory.mask[:, :1], BOS, dtype=torch.long))
    return model.generate(
        inputs_embeds=torch.cat([memory.tokens, bos], 1),
        attention_mask=pad(memory.mask, (0, 1), value=True).long(),
        max_new_tokens=MAX_LENGTH,
        min_new_tokens=MIN_LENGTH,
        num_beams=num_beams,
        do_sample=False,
        suppress_tokens=[UNK, BOS, PAD],
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )


def measure(decoder: CausalLM, memory: Memory, num_beams: int, options: argparse.Namespace) -> dict[str, Any]:
    model = of_transformers(decoder)

    def run_ours() -> Generated:
        with torch.no_grad(), precision():
            return ours(num_beams)(decoder, memory)

    def run_theirs() -> torch.Tensor:
        with torch.no_grad(), precision():
            return theirs(model, memory, num_beams)

    def precision() -> contextlib.AbstractContextManager:
        return autocast(options.device, Precision(options.precision))

    words, expected = run_ours().words, run_theirs()
    same = (pad(words, (0, expected.shape[1] - words.shape[1]), value=PAD) == expected).all(1)
    # On a GPU both sides add up in other orders, and words whose scores are nearly equal may change places.
    if options.precision == "fp32" and options.device.type == "cpu" and not same.all():
        raise SystemExit(f"the token ids of {int((~same).sum())} of {len(same)} captions differ")
    sides = {"easycap": run_ours, "generate": run_theirs}
    seconds = alternate(sides, rounds=options.rounds, device=options.device)
    rates = {name: options.images / statistics.median(values) for name, values in seconds.items()}
    return {
        "decoding": "greedy" if num_beams == 1 else f"beam {num_beams}",
        "precision": options.precision,
        "mean_words": float((words != PAD).sum(1).float().mean()),
        "same_captions": float(same.float().mean()),
        "captions_per_second": rates,
        "ratio": ratio(seconds, "easycap", "generate"),
    }


def settings(options: argparse.Namespace) -> dict[str, Any]:
    names = ("quick", "images", "image_tokens", "rounds")
    return {name: getattr(options, name) for name in names} | {
        "max_length": MAX_LENGTH,
        "min_length": MIN_LENGTH,
    }


def as_text(row: dict[str, Any]) -> dict[str, str]:
    times, rates = row["ratio"], row["captions_per_second"]
    return {
        "decoding": row["decoding"],
        "precision": row["precision"],
        "words per caption": f"{row['mean_words']:.1f}",
        "same captions": f"{row['same_captions']:.0%}",
        "easycap, captions/s": f"{rates['easycap']:.2f}",
        "generate, captions/s": f"{rates['generate']:.2f}",
        "times as fast": "{median:.2f} ({low:.2f} to {high:.2f})".format(**times),
    }


if __name__ == "__main__":
    main()
