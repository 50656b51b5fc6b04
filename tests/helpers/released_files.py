"""Small files with the keys and shapes of releases, made from a list of facts; their weights are random."""

from __future__ import annotations

import argparse
import collections
import json
import pickle
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from helpers.tiny_tokenizers import tiny_gpt2
from torch import nn

from easycap.vocab.gpt2 import GPT2Vocabulary

WORDS = ("a", "photo", "of", "thing", "dog", "0", "1", "2")
DIM = 6  # of the regions of helpers.region_files

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def m2_shapes(words: int) -> Shapes:
    width, inner, memory, positions, layers = 64, 10, 3, 55, 2
    shapes = linear("encoder.fc", width, DIM) | norm("encoder.layer_norm", width)
    for layer in range(layers):
        for place in (
            f"encoder.layers.{layer}.mhatt",
            f"decoder.layers.{layer}.self_att",
            f"decoder.layers.{layer}.enc_att",
        ):
            for part in "qkvo":
                shapes |= linear(f"{place}.attention.fc_{part}", width, width)
            shapes |= norm(f"{place}.layer_norm", width)
        for vectors in ("m_k", "m_v"):
            shapes[f"encoder.layers.{layer}.mhatt.attention.{vectors}"] = (1, memory, width)
        for half in ("encoder", "decoder"):
            place = f"{half}.layers.{layer}.pwff"
            shapes |= linear(f"{place}.fc1", inner, width) | linear(f"{place}.fc2", width, inner)
            shapes |= norm(f"{place}.layer_norm", width)
        for level in range(1, layers + 1):
            shapes |= linear(f"decoder.layers.{layer}.fc_alpha{level}", width, 2 * width)
        shapes[f"decoder.layers.{layer}.self_att.running_keys"] = (0, width)
    shapes |= {"decoder.word_emb.weight": (words, width), "decoder.pos_emb.weight": (positions, width)}
    return shapes | linear("decoder.fc", words, width, bias=False)


HIDDEN, EMBED, ATTENTION = 8, 5, 4


def _attending(words: int) -> Shapes:
    return (
        {"embed.0.weight": (words, EMBED)}
        | linear("att_embed.0", HIDDEN, DIM)
        | linear("ctx2att", ATTENTION, HIDDEN)
        | linear("core.attention.h2att", ATTENTION, HIDDEN)
        | linear("core.attention.alpha_net", 1, ATTENTION)
        | linear("logit", words, HIDDEN)
    )


def newfc_shapes(words: int) -> Shapes:
    return (
        {"embed.weight": (words, EMBED)}
        | linear("fc_embed", EMBED, DIM)
        | linear("_core.i2h", 5 * HIDDEN, EMBED)
        | linear("_core.h2h", 5 * HIDDEN, HIDDEN)
        | linear("logit", words, HIDDEN)
    )


def updown_shapes(words: int) -> Shapes:
    shapes = _attending(words) | linear("fc_embed.0", HIDDEN, DIM)
    for cell, inputs in (("att", EMBED + 2 * HIDDEN), ("lang", 2 * HIDDEN)):
        place = f"core.{cell}_lstm"
        shapes |= {f"{place}.weight_ih": (4 * HIDDEN, inputs), f"{place}.weight_hh": (4 * HIDDEN, HIDDEN)}
        shapes |= {f"{place}.bias_ih": (4 * HIDDEN,), f"{place}.bias_hh": (4 * HIDDEN,)}
    return shapes


def att2in2_shapes(words: int) -> Shapes:
    return (
        _attending(words)
        | linear("core.a2c", 2 * HIDDEN, HIDDEN)
        | linear("core.i2h", 5 * HIDDEN, EMBED)
        | linear("core.h2h", 5 * HIDDEN, HIDDEN)
    )


def transformer_shapes(words: int) -> Shapes:
    shapes = linear("att_embed.0", HIDDEN, DIM)
    for half, attentions in (("encoder", ("self_attn",)), ("decoder", ("self_attn", "src_attn"))):
        for layer in range(2):
            place = f"model.{half}.layers.{layer}"
            for attention in attentions:
                for number in range(4):
                    shapes |= linear(f"{place}.{attention}.linears.{number}", HIDDEN, HIDDEN)
            shapes |= linear(f"{place}.feed_forward.w_1", 12, HIDDEN)
            shapes |= linear(f"{place}.feed_forward.w_2", HIDDEN, 12)
            for number in range(len(attentions) + 1):
                norm_name = f"{place}.sublayer.{number}.norm"
                shapes |= {f"{norm_name}.a_2": (HIDDEN,), f"{norm_name}.b_2": (HIDDEN,)}
        shapes |= {f"model.{half}.norm.a_2": (HIDDEN,), f"model.{half}.norm.b_2": (HIDDEN,)}
    shapes |= {"model.tgt_embed.0.lut.weight": (words, HIDDEN), "model.tgt_embed.1.pe": (1, 50, HIDDEN)}
    return shapes | linear("model.generator.proj", words, HIDDEN)


RUOTIANLUO = {
    "newfc": newfc_shapes,
    "updown": updown_shapes,
    "att2in2": att2in2_shapes,
    "transformer": transformer_shapes,
}


def random_weights(shapes: Shapes) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return collections.OrderedDict(
        (name, 0.5 * torch.randn(shape, generator=generator)) for name, shape in shapes.items()
    )


@contextmanager
def own_module(path: str, **values: object) -> Iterator[types.ModuleType]:
    """A module that exists while it is needed to pickle objects of its classes."""
    module = types.ModuleType(path)
    for name, value in values.items():
        setattr(module, name, value)
        value.__module__ = path
    parents = [parent for parent in (path.rpartition(".")[0],) if parent and parent not in sys.modules]
    sys.modules |= {parent: types.ModuleType(parent) for parent in parents} | {path: module}
    try:
        yield module
    finally:
        for name in (path, *parents):
            del sys.modules[name]


class Vocab:
    """Has what torchtext's class of that name keeps."""


def default_unk_index() -> int:
    return 0


def write_m2(folder: Path, words: Sequence[str] = WORDS) -> list[Path]:
    """The release's two files: a training's checkpoint, and a pickled object of a class `data.vocab.Vocab`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "meshed_memory_transformer.pth", folder / "vocab.pkl"]
    itos = ["<unk>", "<pad>", "<bos>", "<eos>", *words]
    torch.save({"epoch": 3, "state_dict": random_weights(m2_shapes(len(itos))), "use_rl": True}, files[0])
    Vocab.__qualname__ = "Vocab"
    default_unk_index.__qualname__ = default_unk_index.__name__ = "_default_unk_index"
    with own_module("data.vocab", Vocab=Vocab, _default_unk_index=default_unk_index):
        vocabulary = Vocab()
        vocabulary.freqs, vocabulary.itos = collections.Counter(words), itos
        vocabulary.stoi = collections.defaultdict(default_unk_index, {w: i for i, w in enumerate(itos)})
        files[1].write_bytes(pickle.dumps(vocabulary))
    return files


def write_ruotianluo(folder: Path, model: str, words: Sequence[str] = WORDS, **options: object) -> list[Path]:
    """`model-best.pth`, in the format before torch 1.6, and infos with a pickled Namespace."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "model-best.pth", folder / "infos_x-best.pkl"]
    by_index = {str(index): word for index, word in enumerate([*words, "UNK"], 1)}
    weights = random_weights(RUOTIANLUO[model](len(by_index) + 1))
    torch.save(weights, files[0], _use_new_zipfile_serialization=False)
    opt = argparse.Namespace(
        **{"caption_model": model, "use_bn": 0, "max_length": 20, "num_att_heads": 1} | options
    )
    files[1].write_bytes(pickle.dumps({"opt": opt, "vocab": by_index, "iter": 7}, protocol=2))
    return files


def write_sgrvinod(folder: Path, words: Sequence[str] = WORDS) -> list[Path]:
    """A checkpoint of whole pickled modules, in the format before torch 1.6, and a word map.

    The trunk is a ResNet-18 in half precision, so that files are small.
    """
    from torchvision.models import resnet18

    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "BEST_checkpoint_x.pth.tar", folder / "WORDMAP_x.json"]
    numbers = {word: index for index, word in enumerate((*words, "<unk>", "<start>", "<end>"), 1)} | {
        "<pad>": 0
    }
    torch.manual_seed(0)
    for one in (Encoder, Attention, DecoderWithAttention):
        one.__qualname__ = one.__name__
    with own_module(
        "models", Encoder=Encoder, Attention=Attention, DecoderWithAttention=DecoderWithAttention
    ):
        encoder = Encoder()
        encoder.resnet = nn.Sequential(*list(resnet18(weights=None).children())[:-2]).half()
        encoder.enc_image_size, encoder.adaptive_pool = 14, nn.AdaptiveAvgPool2d((14, 14))
        decoder = DecoderWithAttention()
        decoder.attention = Attention()
        for name, (inputs, outputs) in {
            "encoder_att": (512, ATTENTION),
            "decoder_att": (HIDDEN, ATTENTION),
            "full_att": (ATTENTION, 1),
        }.items():
            setattr(decoder.attention, name, nn.Linear(inputs, outputs))
        decoder.embedding = nn.Embedding(len(numbers), EMBED)
        decoder.decode_step = nn.LSTMCell(EMBED + 512, HIDDEN)
        for name, outputs in {"init_h": HIDDEN, "init_c": HIDDEN}.items():
            setattr(decoder, name, nn.Linear(512, outputs))
        decoder.f_beta, decoder.fc = nn.Linear(HIDDEN, 512), nn.Linear(HIDDEN, len(numbers))
        optimizer = torch.optim.Adam(decoder.parameters())
        stored = {"epoch": 3, "bleu-4": 0.2, "encoder": encoder, "decoder": decoder}
        stored |= {"encoder_optimizer": None, "decoder_optimizer": optimizer}
        torch.save(stored, files[0], _use_new_zipfile_serialization=False)
    files[1].write_text(json.dumps(numbers))
    return files


class Encoder(nn.Module):
    """Has the attributes of the tutorial's."""


class Attention(nn.Module):
    """Has the attributes of the tutorial's."""


class DecoderWithAttention(nn.Module):
    """Has the attributes of the tutorial's."""


WIDTH, TOKENS = 16, 3  # of GPT-2 and of image tokens


def gpt2_shapes(words: int) -> Shapes:
    """As transformers before 4.31 stored it, with the causal mask."""
    shapes: Shapes = {"gpt.transformer.wte.weight": (words, WIDTH), "gpt.transformer.wpe.weight": (80, WIDTH)}
    for layer in range(2):
        place = f"gpt.transformer.h.{layer}"
        shapes |= norm(f"{place}.ln_1", WIDTH) | norm(f"{place}.ln_2", WIDTH)
        shapes |= {f"{place}.attn.bias": (1, 1, 80, 80), f"{place}.attn.masked_bias": ()}
        for part, inputs, outputs in (
            ("attn.c_attn", WIDTH, 3 * WIDTH),
            ("attn.c_proj", WIDTH, WIDTH),
            ("mlp.c_fc", WIDTH, 4 * WIDTH),
            ("mlp.c_proj", 4 * WIDTH, WIDTH),
        ):
            shapes |= {f"{place}.{part}.weight": (inputs, outputs), f"{place}.{part}.bias": (outputs,)}
    return shapes | norm("gpt.transformer.ln_f", WIDTH)


def clipcap_mapper_shapes(mapper: str, dim: int) -> Shapes:
    if mapper == "mlp":
        hidden = TOKENS * WIDTH // 2
        return linear("clip_project.model.0", hidden, dim) | linear(
            "clip_project.model.2", TOKENS * WIDTH, hidden
        )
    if mapper == "split":
        return linear("clip_project", TOKENS * WIDTH, dim)
    shapes = linear("clip_project.linear", 2 * WIDTH, dim) | {"clip_project.prefix_const": (TOKENS, WIDTH)}
    for layer in range(2):
        place = f"clip_project.transformer.layers.{layer}"
        shapes |= norm(f"{place}.norm1", WIDTH) | norm(f"{place}.norm2", WIDTH)
        shapes |= linear(f"{place}.attn.to_queries", WIDTH, WIDTH, bias=False)
        shapes |= linear(f"{place}.attn.to_keys_values", 2 * WIDTH, WIDTH, bias=False)
        shapes |= linear(f"{place}.attn.project", WIDTH, WIDTH)
        shapes |= linear(f"{place}.mlp.fc1", 2 * WIDTH, WIDTH) | linear(f"{place}.mlp.fc2", WIDTH, 2 * WIDTH)
    return shapes


def clipcap_weights(
    mapper: str = "mlp", *, gpt2: bool = True, dim: int = DIM, words: int | None = None
) -> dict[str, torch.Tensor]:
    """What the authors' train.py saves; `words` are those of tiny_gpt2()."""
    words = words or GPT2Vocabulary(path=str(tiny_gpt2()), segmenter="spaces", end=".").bos_id
    weights = random_weights(clipcap_mapper_shapes(mapper, dim) | (gpt2_shapes(words) if gpt2 else {}))
    if gpt2:
        weights["gpt.lm_head.weight"] = weights["gpt.transformer.wte.weight"]
    return weights


def write_clipcap(folder: Path, mapper: str = "mlp", **options: Any) -> list[Path]:
    """`coco_weights.pt`, a state dict."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(clipcap_weights(mapper, **options), folder / "coco_weights.pt")
    return [folder / "coco_weights.pt"]


# (system, model) -> what writes its files into a folder.
RELEASES = {
    ("m2", "m2"): write_m2,
    ("clipcap", "clipcap"): write_clipcap,
    ("sgrvinod", "sgrvinod"): write_sgrvinod,
} | {
    ("ruotianluo", model): lambda folder, model=model: write_ruotianluo(folder, model) for model in RUOTIANLUO
}


# system -> what writes its files with other words than WORDS.
WITH_MORE_WORDS = {
    "m2": write_m2,
    "sgrvinod": write_sgrvinod,
    "ruotianluo": lambda folder, words: write_ruotianluo(folder, "updown", words),
}


def overrides_of(system: str) -> list[str]:
    """Settings without which the files of a system cannot be imported here."""
    if system == "sgrvinod":
        return ["encoder.image_size=64"]
    regions = ["encoder.features=features", "encoder.min_regions=1"]
    return [*regions, f"vocab.path={tiny_gpt2()}"] if system == "clipcap" else regions
