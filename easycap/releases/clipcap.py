"""ClipCap: rmokady/CLIP_prefix_caption at 1ad805a, `coco_weights.pt`, `conceptual_weights.pt` and what its train.py
saves: a state dict of a mapper from CLIP's image embedding to GPT-2's word vectors, and of GPT-2 itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from easycap.errors import UserError
from easycap.releases.pickles import StoredTensor
from easycap.releases.release import Release, System, Weights, count, need, renamed, weights_among
from easycap.releases.torch_files import ReleasedFile

# A weight by which each mapper is known, and our image tokens.
_MAPPERS = {
    "clip_project.model.0.weight": "mlp",
    "clip_project.prefix_const": "mapper",
    "clip_project.weight": "split",  # of early versions, where there are more than 10 tokens
}
_TABLE = "gpt.transformer.wte.weight"
_LAYER = r"clip_project\.transformer\.layers\.(\d+)"
NAMES = [
    (r"clip_project\.model\.(\d+)\.(\w+)", r"image_tokens.layers.\1.\2"),
    (r"clip_project\.(weight|bias)", r"image_tokens.project.\1"),
    (r"clip_project\.linear\.(\w+)", r"image_tokens.cut.\1"),
    (r"clip_project\.prefix_const", "image_tokens.constants"),
    (rf"{_LAYER}\.norm1\.(\w+)", r"image_tokens.layers.\1.around_attention.norm.\2"),
    (rf"{_LAYER}\.norm2\.(\w+)", r"image_tokens.layers.\1.around_feed_forward.norm.\2"),
    (rf"{_LAYER}\.attn\.to_queries\.(\w+)", r"image_tokens.layers.\1.attention.query.\2"),
    (rf"{_LAYER}\.attn\.to_keys_values\.weight", ""),  # cut in two below
    (rf"{_LAYER}\.attn\.project\.(\w+)", r"image_tokens.layers.\1.attention.out.\2"),
    (rf"{_LAYER}\.mlp\.fc1\.(\w+)", r"image_tokens.layers.\1.feed_forward.0.\2"),
    (rf"{_LAYER}\.mlp\.fc2\.(\w+)", r"image_tokens.layers.\1.feed_forward.2.\2"),
    (
        r"gpt\.transformer\.h\.\d+\.attn\.(masked_)?bias",
        "",
    ),  # the causal mask, which transformers used to store
    (r"gpt\.(.*)", r"decoder.lm.\1"),
]
# Widths of CLIP's embedding -> the encoder.
_ENCODERS = {512: "clip_vit_b32", 640: "clip_rn50x4"}
_WIDTH, _HEAD, _HEADS = 768, 64, 8  # GPT-2 small's; of a head of any GPT-2; of the Transformer mapper
_LONGEST = 67  # tokens of a caption there


def recognise(content: Any) -> str | None:
    """Return the model's name for its weights."""
    if not isinstance(content, Mapping):
        return None
    return "clipcap" if any(isinstance(content.get(name), StoredTensor) for name in _MAPPERS) else None


def read(files: Sequence[ReleasedFile]) -> Release:
    """Return the model of a file of weights, with its GPT-2 or without."""
    file = weights_among(files, SYSTEM)
    if len(files) > 1:
        raise UserError(
            "ClipCap's weights are one file: give it alone (its tokenizer is GPT-2's, vocab.path=FOLDER)"
        )
    theirs = {name: tensor.float() for name, tensor in file.tensors(file.content).items()}
    mapper = next(ours for name, ours in _MAPPERS.items() if name in theirs)
    width = theirs[_TABLE].shape[1] if _TABLE in theirs else None
    overrides, embedding = _mapper(mapper, theirs, file, width or _WIDTH)
    weights = renamed(theirs, NAMES, file)
    if mapper == "mapper":
        _cut_keys_and_values(theirs, weights, file)
    kept = ["encoder."]
    if width is None:
        kept.append("decoder.")
        overrides += ["decoder.tune=none", "decoder.architecture=null"]
    else:
        overrides += _gpt2(theirs, file)
        table = theirs[_TABLE]
        # bos and pad, which this GPT-2 does not have: nothing reads their rows, and they are never predicted
        table = torch.cat([table, table.new_zeros(2, table.shape[1])])
        weights["decoder.lm.transformer.wte.weight"] = weights["decoder.lm.lm_head.weight"] = table
    return Release(
        "clipcap",
        [*_COMMON, *_encoder(embedding), *overrides],
        None,
        weights,
        not_known=(*_not_known(embedding, mapper), *(() if width else _ABSENT)),
        num_words=None if width is None else len(theirs[_TABLE]),
        kept=tuple(kept),
    )


def _mapper(
    mapper: str, theirs: Mapping[str, torch.Tensor], file: ReleasedFile, width: int
) -> tuple[list[str], int]:
    """The settings of the image tokens, and the width of the embedding they are made of."""
    first = {"mlp": "clip_project.model.0.weight", "mapper": "clip_project.linear.weight"}
    embedding = need(theirs, first.get(mapper, "clip_project.weight"), file).shape[1]
    last = {"mlp": "clip_project.model.2.weight", "mapper": "clip_project.linear.weight"}
    outputs = len(need(theirs, last.get(mapper, "clip_project.weight"), file))
    sizes = {"count": outputs // width}
    if mapper == "mapper":
        constants = need(theirs, "clip_project.prefix_const", file)
        sizes = {
            "count": len(constants),
            "num_pieces": outputs // constants.shape[1],
            "num_layers": count(theirs, rf"{_LAYER}\."),
            "num_heads": _HEADS,
        }
    normalized = mapper == "mapper"
    fields = [f"image_tokens.{name}={value}" for name, value in sizes.items()]
    return [f"image_tokens={mapper}", *fields, f"image_tokens.normalize={str(normalized).lower()}"], embedding


def _cut_keys_and_values(theirs: Mapping[str, torch.Tensor], weights: Weights, file: ReleasedFile) -> None:
    """Their mapper makes keys and values with one matrix, and has no biases for these and the queries."""
    for layer in range(count(theirs, rf"{_LAYER}\.")):
        both = need(theirs, f"clip_project.transformer.layers.{layer}.attn.to_keys_values.weight", file)
        place = f"image_tokens.layers.{layer}.attention"
        weights[f"{place}.key.weight"], weights[f"{place}.value.weight"] = both.chunk(2)
        for part in ("query", "key", "value"):
            weights[f"{place}.{part}.bias"] = both.new_zeros(both.shape[1])


def _gpt2(theirs: Mapping[str, torch.Tensor], file: ReleasedFile) -> list[str]:
    """The architecture of the GPT-2 in the file."""
    width = theirs[_TABLE].shape[1]
    architecture = {
        "model_type": "gpt2",
        "n_embd": width,
        "n_layer": count(theirs, r"gpt\.transformer\.h\.(\d+)\."),
        "n_head": max(1, width // _HEAD),
        "n_positions": len(need(theirs, "gpt.transformer.wpe.weight", file)),
        "n_inner": need(theirs, "gpt.transformer.h.0.mlp.c_fc.weight", file).shape[1],
    }
    fields = json.dumps(architecture).replace('"', "")
    return ["decoder.pretrained=null", "decoder.embedding=auto", f"decoder.architecture={fields}"]


def _encoder(embedding: int) -> list[str]:
    if embedding in _ENCODERS:
        return [f"encoder={_ENCODERS[embedding]}"]
    return ["encoder=precomputed", f"encoder.region_dim={embedding}", "encoder.min_regions=1"]


def _not_known(embedding: int, mapper: str) -> tuple[str, ...]:
    clip = {512: "ViT-B/32, as in the released weights", 640: "RN50x4"}.get(embedding, "precomputed vectors")
    normalized = "divided by its length, as in" if mapper == "mapper" else "read as it is, as in"
    return (
        f"encoder: which CLIP the {embedding} numbers of an image are from; assumed to be {clip} (encoder=...)",
        f"embedding: assumed to be {normalized} the authors' notebook for this mapper (image_tokens.normalize)",
        "number of heads: assumed to be width / 64, as in every GPT-2 (decoder.architecture.n_head)",
        "data: COCO or Conceptual Captions; assumed to be COCO (data=...)",
    )


_ABSENT = (
    "GPT-2: the file has none, so it is that of decoder.pretrained, and the number of image tokens is for its 768 "
    "numbers (image_tokens.count)",
)
_COMMON = (
    "experiment=clipcap/mlp_tuned",
    "vocab.end=.",
    "decoder.predict_special=false",
    f"decoder.max_length={_LONGEST}",
    f"decoding.max_length={_LONGEST}",
    "decoding.num_beams=5",
    "decoding.length_penalty=1.0",
    "decoding.min_length=0",
    "decoding.on_end=keep",
)

SYSTEM = System("clipcap", "ClipCap (rmokady)", "coco_weights.pt vocab.path=GPT2_FOLDER", recognise, read)
