"""The transformer of ruotianluo/ImageCaptioning.pytorch at 4c48a33 (captioning/models/TransformerModel.py): its weights
under our names.
"""

from __future__ import annotations

from easycap.releases.release import Weights, count, need, renamed
from easycap.releases.torch_files import ReleasedFile

# What stands in the layers of their transformer, in order, and our names.
_ENCODER_BLOCKS = {"self_attn": "attention", "feed_forward": "feed_forward"}
_DECODER_BLOCKS = {
    "self_attn": "self_attention",
    "src_attn": "cross_attention",
    "feed_forward": "feed_forward",
}
_AROUND = {
    "attention": "attention",
    "self_attention": "self",
    "cross_attention": "cross",
    "feed_forward": "feed_forward",
}
_TRANSFORMER = (
    "decoder=transformer",
    "decoder.raw_features=true",
    "decoder.project_norm=false",
    "decoder.tied=false",
    "decoder.output_bias=true",
    "decoder.norm=pre",
    "decoder.layer_norm=unbiased",
    "decoder.dropout=0.1",
    "decoder.dropout_feed_forward=true",
)


def transformer_weights(theirs: Weights, file: ReleasedFile, num_heads: int) -> tuple[list[str], Weights]:
    """Return the overrides and the weights of a transformer, under our names; `UserError` for one that is missing."""
    names = [
        (r"att_embed\.0\.(\w+)", r"decoder.project.0.\1"),
        (r"model\.tgt_embed\.0\.lut\.weight", "decoder.words.table.weight"),
        (r"model\.tgt_embed\.1\.pe", ""),  # sinusoids
        (r"model\.generator\.proj\.(\w+)", r"decoder.output.\1"),
    ]
    for theirs_part, ours, blocks, norm in (
        ("encoder", "decoder.encoder", _ENCODER_BLOCKS, "norm_memory"),
        ("decoder", "decoder.layers", _DECODER_BLOCKS, "norm_words"),
    ):
        layer = rf"model\.{theirs_part}\.layers\.(\d+)\."
        for number, (block, attention) in enumerate(blocks.items()):
            for kind, letter in (("weight", "a"), ("bias", "b")):
                place = rf"{layer}sublayer\.{number}\.norm\.{letter}_2"
                names.append((place, rf"{ours}.\1.around_{_AROUND[attention]}.norm.{kind}"))
            names += [
                (rf"{layer}{block}\.linears\.{index}\.(\w+)", rf"{ours}.\1.{attention}.{linear}.\2")
                for index, linear in enumerate(("query", "key", "value", "out"))
            ]
        for place, index in (("w_1", 0), ("w_2", 2)):
            names.append((rf"{layer}feed_forward\.{place}\.(\w+)", rf"{ours}.\1.feed_forward.{index}.\2"))
        names += [
            (rf"model\.{theirs_part}\.norm\.{letter}_2", f"decoder.{norm}.{kind}")
            for kind, letter in (("weight", "a"), ("bias", "b"))
        ]
    weights = renamed(theirs, names, file)
    width, features = need(theirs, "att_embed.0.weight", file).shape
    sizes = {
        "decoder.width": width,
        "decoder.num_encoder_layers": count(theirs, r"model\.encoder\.layers\.(\d+)\."),
        "decoder.num_layers": count(theirs, r"model\.decoder\.layers\.(\d+)\."),
        "decoder.num_heads": num_heads,
        "decoder.feed_forward_dim": len(need(theirs, "model.encoder.layers.0.feed_forward.w_1.weight", file)),
        "encoder.region_dim": features,
    }
    return [*_TRANSFORMER, *(f"{name}={value}" for name, value in sizes.items())], weights
